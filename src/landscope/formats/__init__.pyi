from . import checkpoint as checkpoint
from . import reference_h5 as reference_h5
from . import vtk as vtk
