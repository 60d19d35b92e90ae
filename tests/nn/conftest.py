import pytest

from deep_emotion_jax.nn import pixel_reads


@pytest.fixture(params=["gather", "planes", "pairs"])
def form(request, monkeypatch):
    """Runs a test once per implementation in `pixel_reads`; `jax.jit` must be called in the test.

    Only "gather" implements bicubic, and "pairs" does not implement nearest.
    """
    params = request.node.callspec.params
    method, padding, corners = (params.get(name) for name in ("method", "padding", "corners"))
    if request.param != "gather" and method == "bicubic":
        pytest.skip("only gather implements bicubic")
    if request.param == "pairs" and method == "nearest":
        pytest.skip("pairs does not implement nearest")
    # The forms share the code for padding and corners: one convention each is enough.
    if request.param != "gather" and corners not in (None, padding == "reflection"):
        pytest.skip("covered by gather")

    def choose(shape, settings):
        if settings.method == "bicubic" or (request.param, settings.method) == ("pairs", "nearest"):
            return pixel_reads.gather
        return getattr(pixel_reads, request.param)

    monkeypatch.setattr(pixel_reads, "choose", choose)
    monkeypatch.setattr(pixel_reads, "CACHED_NUMBERS", 1)  # one image at a time
    return request.param
