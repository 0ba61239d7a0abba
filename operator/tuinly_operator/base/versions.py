"""Resource versions, which tell in what order the changes of one kind of object happened."""


def older(one: str, other: str) -> bool:
    """Whether a resource version is older (KEP-5504: comparable as numbers); never where one is no number."""
    try:
        return int(one) < int(other)
    except ValueError:
        return False
