"""What the `feast` command sees: the definitions of this home. The only file Feast loads (.feastignore)."""

from feature_repo.definitions import definitions
from troth.settings import here

DEFINITIONS = definitions(here().home)
# Feast finds objects by module attribute, not in lists.
globals().update({f"{type(each).__name__}_{each.name}": each for each in DEFINITIONS})
