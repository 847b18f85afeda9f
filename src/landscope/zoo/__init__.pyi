from .catalog import CATALOG as CATALOG
from .catalog import Entry as Entry
from .catalog import initial as initial
from .catalog import objective as objective
