"""The environment that tests give to servers and clients: none of the variables of memkv but the licence.

The licence is that of MEMKV_LICENSE, which ctest sets; for a test started by hand, that of the build tree in
which the program lies.
"""

import os
import pathlib


def environment(program, *, keep=False, **variables):
    """A copy of this process's environment, without MEMKV_* unless they are kept, and with variables."""
    chosen = {
        name: value for name, value in os.environ.items() if keep or not name.startswith("MEMKV_")
    }
    given = os.environ.get("MEMKV_LICENSE")
    issued = pathlib.Path(program).resolve().parents[1] / "license" / "development.license"
    if given:
        chosen["MEMKV_LICENSE"] = given
    elif issued.is_file():
        chosen["MEMKV_LICENSE"] = str(issued)
    chosen.update(variables)
    return chosen
