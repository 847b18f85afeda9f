"""Reading CIFAR-10: every layout gives the same images, and no pickle runs anything.

Witnesses: the images are made here and written byte by byte, so that the result is known.
One batch was written by Python 2.7 (cPickle, protocol 2, numpy 1.16) as the published ones were.
The preprocessing is computed again in float64 from its definition.
"""

from __future__ import annotations

import base64
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscope.errors import FormatError
from landscope.zoo import cifar_data

EACH = 4  # images a batch
PYTHON_2_BATCH = (  # two images of (5 * index // 64) % 251 over all bytes, with the labels 3 and 9
    "eNql1/d3U2UYwPEkLYWkS6hoFcHIkKg1GilYRVlaxV4pir0qahtvbm7bSHKTm9yIwaIgtIh1oIAgqAwRxIEDRx114M"
    "BRR2Uo4sCFghNURH9BTsrxfPmV5/PDe877vM8f8H6nuaZaTp+aG9ZszXLpZjqWyPj1eNLwx9JRO6Ilk1rGE0waetxM"
    "2cm0bnusnK4tjxnuerVyFUez6gzNmmB18ylOxTXOUdByYCdsZxKGx8pTXemA4lCc+3e6+5Qc1dlUXV1dtW+/7KE47N"
    "DsGkep42BOclEO5UI3yqPu1IPc4KF8KqBCKoJiOox6Ui8qgcOpNx1BR1IpHEVHUx86hvpCPzqWvHQc9YcBNJAG0fE0"
    "GHx0Ap1IJ1EZnEx+OoVOpQCcRkOonIbSMDidKugMOpOGw1l0No2gkTQKRtMYOofOpUo4j86nsXQBVYFCF9I4qqbxcB"
    "FdTBPoEqoBlS6ly+hymghX0JV0FdVSHQTpatIoRDqEyaB6aqBGiNA1NImiFAOT4pQgi5KQIpvSdC1NhusoQ1PoemqC"
    "qXQD3UjTaDrcRDNoJjVTC8yim2k23UKtcCvdRrfTHTQH7qS7aC7No/lwNy2ghXQPLYLFdC/dR/fTElhKy2g5PUAr4E"
    "FaSavoIVoND9Mj9Cg9RmvgcXqCnqSnaC08Tc/Qs/QctcHz9AK9SC9RO7xMr9Cr9Bqtg9fpDXqT3qL18Da9Q+/Se9QB"
    "79MH9CF9RJ3wMW2gjbSJNsMn9Cltoc9oK3xOX9CX9BVtg6/pG/qWvqPvYTv9QD/SDtoJP9HP9Av9Sr/B77SLdtMf9C"
    "f8RXvob9pL/8C/dAgxkiuMEbcwRoqEMVIijJFSYYz0FcZIf2GMDBbGSJkwRgLCGBkmjJHhwhgZJYyRSmGMVAljZLww"
    "RmqEMTJRGCN1whjRhTHSKIyRmDBGksIYmSyMkSZhjEwXxkiLMEZahTEyRxgj84UxskgYI0uEMbJCGCOrhTGyRhgja4"
    "Ux0iaMkXZhjKwTxsh6YYx0CGOkUxgjm4UxslUYI9uEMWKH1LyoFjKiKatHreX2KTmK21DzQ5qtNwazD5ZH7W0ntYgZ"
    "MRu82bk34I3Xe4da+aq7PhI1TC1mpKyCWqvQp/qiRsKOhzXdzkTTqWDCMG3t/1sqmP1ylfsTZoNVpJboWiwSN7vGgf"
    "KK7LjYSPv/A4dVnZ4="
)


def known(number: int) -> tuple[np.ndarray, list[int]]:
    """Images uint8 [EACH, 32, 32, 3] and labels of a batch; the batch of number 0 is for tests."""
    generator = np.random.default_rng(number)
    images = generator.integers(0, 256, (EACH, 32, 32, 3), dtype=np.uint8)
    return images, generator.integers(0, 10, EACH).tolist()


def pickled(images: np.ndarray, labels: Any, *, protocol: int = 2) -> bytes:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    fields = {
        b"batch_label": b"a batch",
        b"labels": labels,
        b"data": rows,
        b"filenames": [b"a.png"],
    }
    return pickle.dumps(fields, protocol)


def binary(images: np.ndarray, labels: list[int]) -> bytes:
    planes = images.transpose(0, 3, 1, 2)
    return b"".join(
        bytes([label]) + each.tobytes() for label, each in zip(labels, planes, strict=True)
    )


Batches = dict[str, bytes]


def python_batches() -> Batches:
    names = ["test_batch", *(f"data_batch_{number}" for number in range(1, 6))]
    return {name: pickled(*known(number)) for number, name in enumerate(names)}


def binary_batches() -> Batches:
    names = ["test_batch.bin", *(f"data_batch_{number}.bin" for number in range(1, 6))]
    return {name: binary(*known(number)) for number, name in enumerate(names)}


def archive(path: Path, batches: Batches, *, folder: str = "cifar-10-batches-py") -> Path:
    """A .tar.gz whose members lie in the wrong order among others, as in the published ones."""
    with tarfile.open(path, "w:gz") as file:
        for name in ["readme.html", *reversed(batches)]:
            content = batches.get(name, b"nothing to see")
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def extracted(folder: Path, batches: Batches) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in batches.items():
        (folder / name).write_bytes(content)
    return folder


def given_archive(tmp: Path, kind: str, batches: Batches) -> Path:
    return archive(tmp / "renamed.tgz", batches)


def given_folder(tmp: Path, kind: str, batches: Batches) -> Path:
    return extracted(tmp / "somewhere", batches)


def given_folder_around_archive(tmp: Path, kind: str, batches: Batches) -> Path:
    name = "cifar-10-python.tar.gz" if kind == "py" else "cifar-10-binary.tar.gz"
    archive(tmp / name, batches)
    return tmp


def given_folder_around_folder(tmp: Path, kind: str, batches: Batches) -> Path:
    return extracted(tmp / f"cifar-10-batches-{kind}", batches).parent


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("kind", "batches"), [("py", python_batches), ("bin", binary_batches)])
@pytest.mark.parametrize(
    "give",
    [given_archive, given_folder, given_folder_around_archive, given_folder_around_folder],
)
def test_every_layout_gives_the_images_in_order_and_writes_nothing(
    tmp_path: Path,
    kind: str,
    batches: Callable[[], Batches],
    give: Callable[[Path, str, Batches], Path],
    *,
    train: bool,
) -> None:
    path = give(tmp_path, kind, batches())
    before = files(tmp_path)
    images, labels = cifar_data.read(path, train=train)
    expected = [known(number) for number in (range(1, 6) if train else [0])]
    np.testing.assert_array_equal(images, np.concatenate([each for each, _ in expected]))
    np.testing.assert_array_equal(labels, np.concatenate([each for _, each in expected]))
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert images.flags.writeable
    assert files(tmp_path) == before


def test_a_batch_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    content = zlib.decompress(base64.b64decode(PYTHON_2_BATCH))
    assert b"numpy.core.multiarray" in content
    images, labels = cifar_data.read(extracted(tmp_path, {"test_batch": content}), train=False)
    expected = (np.arange(2 * 3072) * 5 // 64 % 251).reshape(2, 3, 32, 32)
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), expected)
    assert labels.tolist() == [3, 9]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("home", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_pickles_of_python_3_are_read_from_old_and_new_numpy(
    tmp_path: Path, protocol: int, home: bytes
) -> None:
    images, labels = known(5)
    content = pickled(images, labels, protocol=protocol)
    if protocol < 4:  # there the name is a line; later it is counted in bytes
        content = content.replace(b"numpy._core.multiarray", home)
        content = content.replace(b"numpy.core.multiarray", home)
        assert home in content
    read, given = cifar_data.read(extracted(tmp_path, {"test_batch": content}), train=False)
    np.testing.assert_array_equal(read, images)
    assert given.tolist() == labels


def test_arrays_of_other_orders_and_sizes_are_read_right(tmp_path: Path) -> None:
    images, labels = known(6)
    rows = np.asfortranarray(images.transpose(0, 3, 1, 2).reshape(EACH, -1))
    fields = {"data": rows, "labels": np.array(labels, dtype=">i4"), "batch_label": b""}
    for protocol in (2, 4):
        batch = {"test_batch": pickle.dumps(fields, protocol)}
        read, given = cifar_data.read(extracted(tmp_path, batch), train=False)
        np.testing.assert_array_equal(read, images)
        assert given.tolist() == labels


class MakesFolder:
    """Makes a folder when it is unpickled by whoever trusts pickles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_wants_to_run_something_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    content = pickle.dumps({b"data": MakesFolder(marker), b"labels": []}, 2)
    pickle.loads(content)
    assert marker.exists()  # the attack works where pickles are trusted
    marker.rmdir()
    for folder in ("py", "archive"):
        path = extracted(tmp_path / folder, {"test_batch": content})
        if folder == "archive":
            path = archive(tmp_path / "bad.tar.gz", {"test_batch": content})
        with pytest.raises(
            FormatError, match=r"test_batch tries to load (posix|nt)\.mkdir; a batch"
        ):
            cifar_data.read(path, train=False)
        assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("numpy", "fromfile"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "scalar"),
        ("_codecs", "decode"),
    ],
)
def test_whatever_a_batch_does_not_need_is_named_and_refused(
    tmp_path: Path, module: str, name: str
) -> None:
    content = f"\x80\x02c{module}\n{name}\n.".encode("latin1")
    with pytest.raises(FormatError, match=rf"tries to load {module}\.{name}; .* get it again"):
        cifar_data.read(extracted(tmp_path, {"test_batch": content}), train=False)


def test_bytes_are_decoded_from_latin1_alone(tmp_path: Path) -> None:
    content = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."
    with pytest.raises(FormatError, match="bytes were written as 'rot13'"):
        cifar_data.read(extracted(tmp_path, {"test_batch": content}), train=False)


def without(batches: Batches, name: str) -> Batches:
    return {key: value for key, value in batches.items() if key != name}


def test_a_path_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        FormatError, match=r"nowhere does not exist: give the archive cifar-10-python"
    ):
        cifar_data.read(tmp_path / "nowhere")


def test_a_folder_without_batches_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no test_batch: give cifar-10-python\.tar\.gz"):
        cifar_data.read(tmp_path, train=False)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", without(python_batches(), "data_batch_3"))
    with pytest.raises(FormatError, match="holds no data_batch_3: give"):
        cifar_data.read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test_batch.bin", binary(*known(0))[:-1]),
        ("test_batch.bin", b""),
        ("test_batch", pickled(*known(0))[:-100]),
        ("test_batch", b""),
        ("test_batch", pickled(known(0)[0][:, :16], known(0)[1])),
        ("test_batch", pickled(known(0)[0], known(0)[1][:-1])),
        ("test_batch", pickled(known(0)[0].astype(np.int16), known(0)[1])),
        ("test_batch", pickle.dumps([1, 2], 2)),
        ("test_batch", pickle.dumps({b"data": 3, b"labels": 3}, 2)),
    ],
)
def test_a_truncated_batch_is_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(FormatError, match=rf"{name} is truncated"):
        cifar_data.read(extracted(tmp_path, {name: content}), train=False)


def test_a_truncated_archive_is_a_sentence(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", python_batches())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(FormatError, match=r"a\.tar\.gz cannot be read .*; get it again"):
        cifar_data.read(path)


def test_a_file_that_is_no_archive_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(FormatError, match=r"a\.tar\.gz cannot be read \(.*\): it is damaged"):
        cifar_data.read(path)


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("test_batch.bin", binary(known(0)[0], [0, 10, 1, 255]), r"10, 255"),
        ("test_batch", pickled(known(0)[0], [0, -1, 1, 2]), r"-1"),
        ("test_batch", pickled(known(0)[0], [0, 1.5, 1, 2]), r"1\.5"),
        ("test_batch", pickled(known(0)[0], [0.0, 1.0, 1.0, 2.0]), r"float64"),
        ("test_batch", pickled(known(0)[0], ["a", "b", "c", "d"]), r"'a', 'b', 'c'"),
    ],
)
def test_labels_that_are_not_from_0_to_9_are_a_sentence(
    tmp_path: Path, name: str, content: bytes, shown: str
) -> None:
    with pytest.raises(FormatError, match=rf"not whole numbers from 0 to 9 \({shown}\)"):
        cifar_data.read(extracted(tmp_path, {name: content}), train=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return extracted(tmp_path / "data", binary_batches())


def test_inputs_are_normalized_with_the_constants_of_the_2018_scripts(data: Path) -> None:
    images, labels = cifar_data.read(data)
    inputs, targets = cifar_data.load_tensors(data)
    mean, std = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7])
    expected = ((images.astype(np.float64) - mean) / std).transpose(0, 3, 1, 2)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert inputs.is_contiguous()
    np.testing.assert_allclose(inputs.numpy(), expected, atol=5e-7)
    np.testing.assert_array_equal(targets.numpy(), labels)


def test_raw_inputs_lie_in_0_to_1(data: Path) -> None:
    images, _ = cifar_data.read(data, train=False)
    inputs, _ = cifar_data.load_tensors(data, train=False, normalize=False)
    np.testing.assert_allclose(inputs.numpy(), images.transpose(0, 3, 1, 2) / 255.0, atol=1e-7)


def test_images_of_any_size_that_cannot_be_written_are_preprocessed_and_left_alone() -> None:
    images = np.full((2, 5, 7, 3), 255, dtype=np.uint8)
    images.flags.writeable = False
    inputs = cifar_data.preprocess(images)
    assert inputs.shape == (2, 3, 5, 7)
    np.testing.assert_allclose(
        inputs[0, :, 4, 6],
        (255 - 255 * np.array(cifar_data.MEAN)) / (255 * np.array(cifar_data.STD)),
        rtol=1e-6,
    )
    assert images.min() == 255


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (np.zeros((2, 5, 7, 3)), r"float64 of shape \(2, 5, 7, 3\)"),
        (np.zeros((2, 3, 5, 7), dtype=np.uint8), r"uint8 of shape \(2, 3, 5, 7\)"),
        (np.zeros((5, 7, 3), dtype=np.uint8), r"uint8 of shape \(5, 7, 3\)"),
    ],
)
def test_what_is_no_image_is_a_sentence(images: np.ndarray, given: str) -> None:
    with pytest.raises(FormatError, match=rf"images are {given}; expected uint8"):
        cifar_data.preprocess(images)


def test_a_split_keeps_a_random_part_in_file_order(data: Path) -> None:
    inputs, targets = cifar_data.load_tensors(data)
    part, labels = cifar_data.load_tensors(data, split=3, seed=1)
    assert len(part) == len(labels) == 20 // 3
    places = [int((inputs == each).flatten(1).all(1).nonzero()) for each in part]
    assert places == sorted(set(places))
    assert labels.tolist() == targets[places].tolist()
    other, _ = cifar_data.load_tensors(data, split=3, seed=2)
    assert not torch.equal(part, other)
    again, _ = cifar_data.load_tensors(data, split=3, seed=1)
    assert torch.equal(part, again)


def large(tmp_path: Path) -> Path:
    """A test batch of 3000 black images of the label 0."""
    return extracted(tmp_path, {"test_batch.bin": bytes(3000 * 3073)})


def test_corruption_replaces_a_share_of_the_labels_by_uniform_ones(tmp_path: Path) -> None:
    data = large(tmp_path)
    _, targets = cifar_data.load_tensors(data, train=False, corrupt=1.0, seed=4)
    counts = torch.bincount(targets, minlength=10)
    assert ((counts - 300).abs() < 6 * (3000 * 0.1 * 0.9) ** 0.5).all()
    _, half = cifar_data.load_tensors(data, train=False, corrupt=0.5, seed=4)
    assert abs(int((half != 0).sum()) - 1350) < 6 * (1500 * 0.9 * 0.1) ** 0.5
    assert torch.equal(half[half != 0], targets[half != 0])  # a larger share contains a smaller one


def test_corruption_does_not_depend_on_the_split(tmp_path: Path, data: Path) -> None:
    inputs, targets = cifar_data.load_tensors(data, corrupt=0.5, seed=4)
    part, labels = cifar_data.load_tensors(data, corrupt=0.5, seed=4, split=2)
    for each, label in zip(part, labels, strict=True):
        place = int((inputs == each).flatten(1).all(1).nonzero())
        assert targets[place] == label
    _, half = cifar_data.load_tensors(large(tmp_path), train=False, corrupt=0.5, split=2)
    assert abs(int((half != 0).sum()) - 675) < 6 * (1500 * 0.45 * 0.55) ** 0.5


def test_the_global_random_state_stays_as_it_was(data: Path) -> None:
    before = torch.get_rng_state()
    cifar_data.load_tensors(data, split=2, corrupt=0.3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": 0}, "split=0 keeps 1/split"),
        ({"split": 1.5}, r"split=1\.5 keeps 1/split"),
        ({"split": 21}, "split=21 leaves none of the 20 images"),
        ({"corrupt": -0.1}, r"corrupt=-0\.1 is not a share"),
        ({"corrupt": 1.1}, r"corrupt=1\.1 is not a share"),
        ({"corrupt": float("nan")}, "corrupt=nan is not a share"),
    ],
)
def test_shares_out_of_range_are_a_sentence(
    data: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(FormatError, match=sentence):
        cifar_data.load_tensors(data, **options)
