#!/usr/bin/env bash
# VTK's XML reader reads the text "-inf" as +inf, in files of VTK's own writer too.
#
# The good guess: a .vtp file in mode "ascii" gives back the numbers that were written. The writer
#   prints "-inf", which C++ and Python read as minus infinity, and the same reader understands
#   "inf" and "nan".
# The behavior: vtkXMLPolyDataReader and vtkXMLStructuredGridReader return +inf for "-inf", without
#   a warning; the sign is lost. Modes "binary" and "appended" keep it.
# Versions: vtk 9.7.2 (the same in 9.2.6), numpy 2.4.6, Python 3.11.
# Output seen:
#   text of the file: -inf inf nan -1.5
#   Ascii    inf inf nan -1.5
#   Binary   -inf inf nan -1.5
#   Appended -inf inf nan -1.5
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vtk==9.7.2 numpy==2.4.6
cat > "$work/run.py" <<'PY'
import math
import re

from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkPoints
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

points, values = vtkPoints(), vtkDoubleArray()
values.SetName("a")
for value in (-math.inf, math.inf, math.nan, -1.5):
    points.InsertNextPoint(0, 0, 0)
    values.InsertNextValue(value)
data = vtkPolyData()
data.SetPoints(points)
data.GetPointData().AddArray(values)
for mode in ("Ascii", "Binary", "Appended"):
    writer = vtkXMLPolyDataWriter()
    getattr(writer, f"SetDataModeTo{mode}")()
    writer.SetFileName("a.vtp")
    writer.SetInputData(data)
    assert writer.Write() == 1
    if mode == "Ascii":
        text = open("a.vtp").read()
        print("text of the file:", *re.search(r'Name="a".*?>([^<]*)<', text)[1].split())
    reader = vtkXMLPolyDataReader()
    reader.SetFileName("a.vtp")
    reader.Update()
    array = reader.GetOutput().GetPointData().GetArray("a")
    print(f"{mode:<8}", *(array.GetValue(k) for k in range(array.GetNumberOfTuples())))
PY
cd "$work"
seen=$("$work/venv/bin/python" run.py)
echo "$seen"
expected='text of the file: -inf inf nan -1.5
Ascii    inf inf nan -1.5
Binary   -inf inf nan -1.5
Appended -inf inf nan -1.5'
[ "$seen" = "$expected" ]
