"""Look for inputs on which an operation is slow."""
