from .objective import Objective as Objective
from .quantities import Chained as Chained
from .quantities import Quantity as Quantity
