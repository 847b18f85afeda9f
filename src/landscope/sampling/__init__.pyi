from .adaptive import Adaptive as Adaptive
from .calibrated import Calibrated as Calibrated
from .grid import Grid as Grid
from .grid import Sampler as Sampler
