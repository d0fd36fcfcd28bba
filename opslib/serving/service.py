"""The parts of a running service, put together once."""

from __future__ import annotations

import time
from functools import partial

from starlette.requests import Request

from opslib.core.host import usable_cpus
from opslib.core.lineage import git_sha
from opslib.inference.preprocess import load_preprocessor
from opslib.serving.classify import Classified, classify
from opslib.serving.decoding import UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.generations import Generation, Generations
from opslib.serving.logs import ACCESS_LOG, AccessLog
from opslib.serving.reload import Reloader
from opslib.serving.settings import MIB, ServiceSettings
from opslib.serving.standing import Standing
from opslib.serving.trace import GENERATION
from opslib.serving.uploads import UploadLimits, read_uploads
from opslib.serving.work import InferenceQueue


class Service:
    """The parts of one running service, put together once.

    Args:
        settings: what it was told.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        config = settings.config
        self.settings = settings
        self.started = time.monotonic()
        self.git_sha = git_sha(config.code_root or config.root)
        secrets = (settings.api_key.decode(),)
        self.access_log = AccessLog(config.logs_dir / ACCESS_LOG, secrets)
        self.generations = Generations(
            capacity=config.reload.resident_models,
            min_free_bytes=config.reload.resident_min_free_mb * MIB,
        )
        self.standing = Standing(self.generations)
        preprocessor = load_preprocessor(config.preprocess.function, config.code_root)
        self.reloader = Reloader(settings, self.generations, preprocessor, self.standing)
        section = config.service
        self.queue = InferenceQueue(section.workers or usable_cpus(), section.queue)
        self.decoder = UploadDecoder(
            preprocessor,
            allowed_exts=settings.environment.allowed_exts,
            max_pixels=config.uploads.max_pixels,
            max_total_pixels=config.uploads.batch_max_pixels,
        )

    def current(self) -> Generation:
        """Return the current generation.

        Raises:
            RefusalError: no model is loaded.
        """
        generation = self.generations.current
        if generation is None:
            raise RefusalError(
                503, "no model is loaded; switch one in with /reload", code="no_model"
            )
        return generation

    async def classify(self, request: Request, field: str, limits: UploadLimits) -> Classified:
        """Read, check and classify the images of a request."""
        self.queue.check()
        uploads = await read_uploads(request, field, limits)
        self.decoder.check(uploads)
        job = partial(classify, uploads, self.generations, self.decoder)
        done = await self.queue.run(job)
        request.scope["state"][GENERATION] = done.generation
        return done

    def close(self) -> None:
        """Finish what is under way and free the models."""
        self.standing.close()
        self.queue.close()
        self.generations.close()
        self.access_log.close()
