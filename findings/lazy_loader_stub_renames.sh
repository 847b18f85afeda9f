#!/usr/bin/env bash
# lazy_loader.attach_stub ignores "as" and __all__ in a stub: checker and interpreter see other names.
#
# The good guess: attach_stub is made so that one .pyi file serves type checkers and the lazy import
#   alike, so "from .numbers import twelve as dozen" with __all__ = ["dozen"] in it makes
#   package.dozen, as the typing specification and mypy read such a stub.
# The behaviour: at run time the package has "twelve", which the stub does not offer, and no "dozen".
#   No error or warning is given when the stub is read; mypy accepts the name that fails and rejects
#   the name that works.
# Versions: lazy_loader 0.6, mypy 2.4.1, Python 3.11.
# Output seen:
#   run time: ['twelve'], dozen: AttributeError
#   mypy: error: Module "shop" has no attribute "twelve"
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lazy_loader==0.6 mypy==2.4.1
mkdir "$work/shop"
echo 'twelve = 12' > "$work/shop/numbers.py"
printf 'from .numbers import twelve as dozen\n\n__all__ = ["dozen"]\n' > "$work/shop/__init__.pyi"
cat > "$work/shop/__init__.py" <<'PY'
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
PY
cat > "$work/run.py" <<'PY'
import shop

try:
    outcome = repr(shop.dozen)
except AttributeError as error:
    outcome = type(error).__name__
print(f"run time: {dir(shop)}, dozen: {outcome}")
PY
printf 'from shop import dozen\n' > "$work/renamed.py"
printf 'from shop import twelve\n' > "$work/original.py"
cd "$work"
seen=$("$work/venv/bin/python" run.py)
echo "$seen"
"$work/venv/bin/mypy" --no-error-summary renamed.py
checked=$("$work/venv/bin/mypy" --no-error-summary original.py || true)
echo "mypy: ${checked#*: }"
[ "$seen" = "run time: ['twelve'], dozen: AttributeError" ] || exit 1
case $checked in *'has no attribute "twelve"'*) ;; *) exit 1 ;; esac
