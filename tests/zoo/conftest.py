from tests.one_thread import one_thread  # noqa: F401 - a fixture that these tests all use
