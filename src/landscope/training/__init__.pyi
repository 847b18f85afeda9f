from .loop import Trained as Trained
from .loop import train as train
from .optimizers import Course as Course
from .principal_components import PCA as PCA
from .recorder import Recorder as Recorder
from .trajectory import Checkpoint as Checkpoint
from .trajectory import Trajectory as Trajectory
