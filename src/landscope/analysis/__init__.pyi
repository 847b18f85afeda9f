from .averages import loss_stderr as loss_stderr
from .averages import neighborhood_average as neighborhood_average
from .ensembles import ensemble as ensemble
from .representative_planes import Representativeness as Representativeness
from .representative_planes import representativeness as representativeness
from .shape_statistics import Shape as Shape
from .shape_statistics import shape as shape
