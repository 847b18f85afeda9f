from .curves import Curve as Curve
from .slices import Affine as Affine
from .slices import Line as Line
from .slices import Plane as Plane
from .slices import Slice as Slice
from .slices import Volume as Volume
