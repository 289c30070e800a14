from search_spaces.spelling import did_you_mean, nearest


def test_slip_finds_its_word_whatever_its_case_and_dashes() -> None:
    assert nearest("Batch-Sizes", ["batch_size", "concurrency"]) == "batch_size"


def test_word_unlike_all_others_gets_the_list() -> None:
    assert did_you_mean("zzz", ["threads", "graphs"]) == "use one of: graphs, threads"
