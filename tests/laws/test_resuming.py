from tests.cases import A
def test_x() -> None:
    assert A == 1
