from .cost import Cost as Cost
from .cost import estimate as estimate
from .journal import Journal as Journal
from .loop import scan as scan
