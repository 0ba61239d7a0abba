"""The facts: all that is known of a credential at the moment when it is decided what to do for it."""

from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential, DeletionPolicy, PodDelivery, Spec
from tuinly_operator.domain.errors import Failure
from tuinly_operator.domain.memory import AttemptInputs, IssuedToken, Memory
from tuinly_operator.domain.push import Content
from tuinly_operator.domain.target import SecretMeta, believe, exchange_inputs, holds_state, looks_as_asked
from tuinly_operator.domain.template import DEFAULT_LAYOUT, Layout


@dataclass(frozen=True, slots=True)
class Policy:
    """What the cluster admin allows and wants; `min_interval` is seconds between two attempts of one credential.

    `push` says that the operator may tell Pods of new tokens.
    """

    token_url: str
    graphql_url: str
    allowed_token_urls: frozenset[str]
    allowed_graphql_urls: frozenset[str]
    min_interval: float
    push: bool = False

    def token_url_of(self, spec: Spec) -> str:
        """The effective token URL."""
        return spec.token_url or self.token_url

    def graphql_url_of(self, spec: Spec) -> str:
        """The effective GraphQL URL."""
        return spec.verification.graphql_url or self.graphql_url

    def urls_of(self, spec: Spec) -> tuple[str, ...]:
        """The URLs that requests are sent to."""
        token_url = self.token_url_of(spec)
        return (token_url, self.graphql_url_of(spec)) if spec.verification.enabled else (token_url,)


class Purpose(Enum):
    """What a request is for."""

    TOKEN = auto()
    VERIFICATION = auto()


@dataclass(frozen=True, slots=True)
class Block:
    """An endpoint must not be asked now.

    `failure` says why, None while users need not know. `until` is when to look again. If it `parks`, the credential
    waits in the limiter's line, which releases it when its turn comes. While a block is `long`, what the request needs
    (such as the client Secret) is not fetched yet.
    """

    failure: Failure | None
    until: Deadline | None = None
    parks: bool = False
    long: bool = False


@dataclass(frozen=True, slots=True)
class Permit:
    """The limiter's answer about a request: without a `block` it may be sent.

    `at_once`: it need not wait for its retry after the last failure, since it is a probe, or since the endpoint has
    been seen to work meanwhile.
    """

    block: Block | None = None
    at_once: bool = False


@dataclass(frozen=True)  # without slots, so that what is asked for often is found out once
class Facts:
    """All that a decision may look at, gathered at `now`. Nothing of it changes any more.

    `problem` says why the spec cannot be followed. `target` is the freshest view of it, `old_targets` are Secrets under
    other names that say they are this credential's target. `absence_proven`: live reads have shown that there is no
    target, while the credential exists. `created`: this leader saw the credential created. `served`: a live read has
    shown that it exists and is ours to serve. `confirmed`: since this replica leads, the API server itself has shown
    the credential as it is here. `permit` is what the limiter says of a token request, `verify_permit` of
    a verification.
    """

    credential: Credential
    policy: Policy
    memory: Memory
    now: Moment
    layout: Layout
    problem: Failure | None = None
    client_secret: SecretMeta | None = None
    target: SecretMeta | None = None
    old_targets: tuple[tuple[NamespacedName, SecretMeta], ...] = ()
    absence_proven: bool = False
    created: bool = False
    served: bool = False
    confirmed: bool = True
    permit: Permit = Permit()
    verify_permit: Permit = Permit()

    @property
    def spec(self) -> Spec:
        """What the team asks for."""
        return self.credential.spec

    @property
    def token_url(self) -> str:
        """The effective token URL."""
        return self.policy.token_url_of(self.spec)

    @property
    def graphql_url(self) -> str:
        """The effective GraphQL URL."""
        return self.policy.graphql_url_of(self.spec)

    @property
    def verifies(self) -> bool:
        """Whether a new token must work before it is published."""
        return self.spec.verification.enabled

    @property
    def pushes(self) -> bool:
        """Whether Pods are to be told of a new token, and may be."""
        stopped = self.spec.suspend or self.credential.deleting or self.memory.namespace_ends
        return self.policy.push and self.problem is None and self.spec.delivery.pods is PodDelivery.PUSH and not stopped

    @cached_property
    def inputs(self) -> str:
        """Digest of what a token would be issued for now."""
        return exchange_inputs(self.token_url, self.spec)

    @property
    def client_identity(self) -> str:
        """Which content of the client Secret is there now; empty where there is none."""
        return self.client_secret.identity if self.client_secret else ""

    @property
    def attempt_inputs(self) -> AttemptInputs:
        """What an attempt would be made with now: a change of it is worth another try at once."""
        return AttemptInputs(self.inputs, self.client_identity)

    @property
    def may_create(self) -> bool:
        """Whether a target may be created where none is seen.

        It may once its absence is proven. No proof is needed right after this leader saw the credential created: nobody
        else can have made its target, and if something of that name is there, a write that only creates fails. For a
        target that is retained a proof is needed even then: if the credential has gone meanwhile, nobody would collect
        the target.
        """
        retained = self.spec.target.deletion_policy is DeletionPolicy.RETAIN
        return self.absence_proven or (self.created and not self.memory.met and not retained)

    @cached_property
    def in_place(self) -> bool:
        """Whether the target holds the token that we last wrote."""
        held, target = self.memory.published, self.target
        return held is not None and target is not None and holds_state(target, self.credential, held.state, self.layout)

    @cached_property
    def looks_as_asked(self) -> bool:
        """Whether the target holds that token and looks as the spec asks for."""
        return self.in_place and self.target is not None and looks_as_asked(self.target, self.credential, self.layout)

    @property
    def usable(self) -> bool:
        """Whether the target holds an unexpired token for the present inputs: what Ready says."""
        held = self.memory.published
        return (
            self.in_place
            and held is not None
            and held.state.exchange_inputs == self.inputs
            and not held.expiry.due(self.now)
        )


def gather(  # noqa: PLR0913 -- all that is known
    credential: Credential,
    policy: Policy,
    memory: Memory,
    now: Moment,
    *,
    client_secret: SecretMeta | None,
    target: SecretMeta | None,
    looked: bool,
    created: bool,
    served: bool,
    confirmed: bool = True,
    old_targets: tuple[tuple[NamespacedName, SecretMeta], ...] = (),
) -> Facts:
    """Put the facts together. Their memory is the given one, brought up to date by what is seen now; it is to be kept.

    `looked` says that the target was looked for live, `served` that the credential was, `created` that this leader saw
    the credential created, `confirmed` that the API server has shown it since this replica leads.
    """
    wanted, problem = understand(credential)
    if target is not None:
        seen = _by_target(memory, target, credential, wanted, now)
        memory = seen if seen.written is memory.written else _catch_up(seen, target, credential, policy, now)
    elif looked:  # if only the watch lacks it, it may be late: another leader may just have written it
        memory = memory.met_target(None)
    inputs = exchange_inputs(policy.token_url_of(credential.spec), credential.spec)
    return Facts(
        credential=credential,
        policy=policy,
        memory=memory.asked_for(inputs, verified=credential.spec.verification.enabled),
        now=now,
        layout=wanted,
        problem=problem,
        client_secret=client_secret,
        target=target,
        old_targets=old_targets,
        absence_proven=looked and served and target is None,
        created=created,
        served=served,
        confirmed=confirmed,
    )


def understand(credential: Credential) -> tuple[Layout, Failure | None]:
    """How a credential asks its target to look, and why its spec cannot be followed, None if it can."""
    template = credential.spec.target.template
    layout = template.layout if template else DEFAULT_LAYOUT
    return (DEFAULT_LAYOUT, layout) if isinstance(layout, Failure) else (layout, credential.problem)


def _by_target(memory: Memory, target: SecretMeta, credential: Credential, wanted: Layout, now: Moment) -> Memory:
    """What is remembered once the target is seen.

    Its annotations are believed in three cases: at the first look of this process; if they tell of the token that was
    just to be written, so that only the answer to the write was lost; and if they tell of a later token than one that
    this process does not know itself.
    """
    present, pending = memory.published, memory.pending
    if memory.met and (target.state is None or (present and target.state.issued_at <= present.state.issued_at)):
        return memory
    state = believe(target, credential, wanted, now.wall)
    if state is None:
        return memory.met_target(None)
    if pending is not None and pending.held.state.same_token(state):
        untried = credential.spec.verification.enabled and not pending.verified
        return memory.wrote(pending.held, None, untried=untried)
    if memory.met and present is not None and present.token is not None:
        return memory  # a rule finds out who wrote it, before anything is written over it
    return memory.met_target(IssuedToken(state, now.moved_to(state.issued_at)))


def _catch_up(memory: Memory, target: SecretMeta, credential: Credential, policy: Policy, now: Moment) -> Memory:
    """What is remembered of content that only the target tells of: whoever wrote it may have told no Pod of it yet."""
    if not policy.push or credential.spec.delivery.pods is not PodDelivery.PUSH:
        return memory
    content = Content(target.version, now.moved_to(target.target.written if target.target else 0.0), ours=False)
    return memory.to_be_pushed(content)
