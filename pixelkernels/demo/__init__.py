"""python -m pixelkernels demo: training on photographs with eager and accelerated losses."""
