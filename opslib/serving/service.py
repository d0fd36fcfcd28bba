"""The parts of a running service, put together once."""

import time
from functools import partial

from starlette.requests import Request

from opslib.core.host import usable_cpus
from opslib.core.lineage import git_sha
from opslib.inference.preprocess import load_preprocessor
from opslib.serving.decoding import UploadDecoder
from opslib.serving.gate import GENERATION
from opslib.serving.generations import Generations
from opslib.serving.line import InferenceQueue
from opslib.serving.logs import ACCESS_LOG, AccessLog
from opslib.serving.reload import Reloader
from opslib.serving.settings import MIB, ServiceSettings
from opslib.serving.standing import Standing
from opslib.serving.together import Classified, Uploads, classify
from opslib.serving.uploads import UploadLimits, read_uploads


class Service:
    """The parts of one running service, put together once."""

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
        self.decoder = UploadDecoder(
            preprocessor,
            allowed_exts=settings.environment.allowed_exts,
            max_pixels=config.uploads.max_pixels,
            max_total_pixels=config.uploads.batch_max_pixels,
        )
        work = partial(classify, generations=self.generations, decoder=self.decoder)
        self.workers = config.service.workers or usable_cpus()
        self.queue = InferenceQueue[Uploads, Classified](work, self.workers, config.service.queue)

    async def classify(self, request: Request, field: str, limits: UploadLimits) -> Classified:
        """Read, check and classify the images of a request."""
        self.queue.check()
        uploads = await read_uploads(request, field, limits)
        self.decoder.check(uploads)
        done = await self.queue.run(uploads)
        request.scope["state"][GENERATION] = done.generation
        return done

    def close(self) -> None:
        """Finish what is under way and free the models."""
        self.standing.close()
        self.queue.close()
        self.generations.close()
        self.access_log.close()
