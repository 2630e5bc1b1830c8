"""The agents: sites, which have data, and a coordinator, which has none."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from academy.agent import Agent, action
from academy.demo import model
from academy.demo.calls import Calls
from academy.demo.data import CLASSES, Dataset, digits, shard
from academy.exception import DeliveryError
from academy.handle import Handle

EPOCHS = 20
"""How often a site goes through its images in one round."""

_ATTEMPTS = 20
_PAUSE = 0.2  # seconds between two attempts


@dataclass(frozen=True)
class Whereabouts:
    """Where an agent runs.

    Attributes:
        host: Name of the host.
        pid: Its process there.
    """

    host: str
    pid: int


@dataclass(frozen=True)
class SiteState:
    """A site as it is at the moment.

    Attributes:
        where: Where it runs.
        digits: How many images of each digit it has.
        training: The round that it trains for just now, if it does.
    """

    where: Whereabouts
    digits: tuple[int, ...]
    training: int | None


@dataclass(frozen=True)
class Update:
    """What a site contributes to a round.

    Attributes:
        site: Index of the site.
        round: The round, counted from 1.
        weights: The model after training at the site.
        images: How many images it was trained with.
    """

    site: int
    round: int
    weights: model.Weights
    images: int


@dataclass(frozen=True)
class Failure:
    """A call to a site that failed and was made again.

    Attributes:
        site: Index of the site.
        error: Name of the error.
        executed: Whether the site may have carried it out: `'no'` or `'maybe'`.
    """

    site: int
    error: str
    executed: str


@dataclass(frozen=True)
class RoundResult:
    """How a round went.

    Attributes:
        round: The round, counted from 1.
        accuracy: Share of the test images that the new model gets right.
        failures: Calls that had to be repeated.
    """

    round: int
    accuracy: float
    failures: tuple[Failure, ...]


def whereabouts() -> Whereabouts:
    """Return where this process runs."""
    return Whereabouts(socket.gethostname(), os.getpid())


class Site(Agent):
    """Keeps its images to itself, and improves models with them.

    Args:
        index: Which site it is, from 0.
        sites: How many there are.
        seed: Determines who has which images.
    """

    def __init__(self, index: int, sites: int, seed: int) -> None:
        self._index = index
        self._sites = sites
        self._seed = seed
        self._updates: dict[int, Update] = {}
        self._training: int | None = None

    async def agent_on_startup(self) -> None:
        """Load the images of this site."""
        self._data: Dataset = await self.agent_run_sync(
            shard, self._index, self._sites, self._seed
        )
        self._turn = asyncio.Lock()

    @action
    async def state(self) -> SiteState:
        """Return where the site runs, what it has, and what it does."""
        counts = np.bincount(self._data.labels, minlength=CLASSES)
        return SiteState(whereabouts(), tuple(counts.tolist()), self._training)

    @action
    async def train(self, round: int, weights: model.Weights) -> Update:
        """Return this site's update of the model for a round.

        Calling again for the same round is harmless: the update is remembered. In a
        new process it is made again, and comes out the same.
        """
        async with self._turn:
            if round not in self._updates:
                self._training = round
                try:
                    self._updates[round] = await self._improve(round, weights)
                finally:
                    self._training = None
        return self._updates[round]

    async def _improve(self, round: int, weights: model.Weights) -> Update:
        seed = [self._seed, self._index, round]
        better = await self.agent_run_sync(
            model.train, weights, self._data, EPOCHS, seed
        )
        return Update(self._index, round, better, len(self._data))


class Coordinator(Agent):
    """Has the sites train a model and averages what they send.

    Args:
        sites: Handles of the sites.
        seed: Determines the weights to begin with.
    """

    def __init__(self, sites: Sequence[Handle[Site]], seed: int) -> None:
        self._sites = tuple(sites)
        self._seed = seed
        self._weights = model.initial(seed)
        self._calls = [Calls() for _ in self._sites]
        self._applied: Counter[tuple[int, int]] = Counter()

    async def agent_on_startup(self) -> None:
        """Load the images to test with."""
        self._training, self._test = await self.agent_run_sync(digits)

    @action
    async def where(self) -> Whereabouts:
        """Return where the coordinator runs."""
        return whereabouts()

    @action
    async def run_round(self, round: int) -> RoundResult:
        """Run one round: every site trains, then the updates are averaged."""
        failures: list[Failure] = []
        updates = await asyncio.gather(
            *(self._update(site, round, failures) for site in range(len(self._sites)))
        )
        for update in updates:
            self._applied[update.site, update.round] += 1
        self._weights = model.average(
            [update.weights for update in updates],
            [update.images for update in updates],
        )
        accuracy = model.accuracy(self._weights, self._test)
        return RoundResult(round, accuracy, tuple(failures))

    @action
    async def calls(self) -> list[Calls]:
        """Return what became of the calls to each site."""
        return self._calls

    @action
    async def applied(self) -> dict[tuple[int, int], int]:
        """Return how often the update of each site and round was applied."""
        return dict(self._applied)

    @action
    async def reference(self, rounds: int) -> float:
        """Return the accuracy of a model that was trained with all images here.

        Args:
            rounds: How many rounds of the sites it is to be compared with.
        """
        trained = await self.agent_run_sync(
            model.train,
            model.initial(self._seed),
            self._training,
            rounds * EPOCHS,
            [self._seed],
        )
        return model.accuracy(trained, self._test)

    async def _update(self, site: int, round: int, failures: list[Failure]) -> Update:
        """Get the update of one site, and ask again when its process was lost.

        A call that `may` have been executed can be repeated only because `train` is
        harmless to repeat.
        """
        for _ in range(_ATTEMPTS):
            call = self._sites[site].train(round, self._weights)
            try:
                update: Update = await self._calls[site].wait(call)
            except DeliveryError as e:
                failures.append(Failure(site, type(e).__name__, e.executed))
                await asyncio.sleep(_PAUSE)
            else:
                return update
        raise RuntimeError(
            f"Site {site} failed {_ATTEMPTS} times in round {round}, last with "
            f"{failures[-1].error}."
        )
