"""`render`: the targets of a file's credentials, offline."""

from argparse import Namespace

from kubectl_tuinly.edges.around import now
from kubectl_tuinly.edges.cluster import Cluster
from kubectl_tuinly.edges.screen import say, tell
from kubectl_tuinly.edges.yaml_text import read_objects, written
from kubectl_tuinly.outcome import Exit, StopError
from kubectl_tuinly.rules.preview import explained, is_credential, preview
from tuinly_operator.base.text import printable
from tuinly_operator.domain.errors import Failure


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Print each target as YAML, with what it is made of; NOT_READY where one would be refused."""
    del cluster  # nothing is asked
    found = [each for each in read_objects(options.filename) if is_credential(each)]
    if not found:
        raise StopError(Exit.WRONG_USE, f"there is no TuinlyCredential of tuinly.com/v1alpha1 in {options.filename}")
    good = True
    for raw in found:
        try:
            target = preview(raw, now())
        except Failure as failure:
            meta = raw.get("metadata")
            name = meta.get("name") if isinstance(meta, dict) else None
            tell(printable(f"{name or 'a credential without a name'} would be refused: {failure.message}"))
            good = False
            continue
        say("---")
        for line in ("made up, to look at: do not apply it", *explained(raw)):
            say(f"# {printable(line)}")
        say(written(target))
    return Exit.READY if good else Exit.NOT_READY
