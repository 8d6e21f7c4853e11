"""`python -m examples.demo`: the library at work on photographs, eager against accelerated."""
