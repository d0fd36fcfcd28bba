"""The same as a LitServe API: `python -m with_litserve PORT`."""

import os
import sys

import litserve
from model import Model


class Classifier(litserve.LitAPI):
    """Classifies the file of the form field `image`; LitServe takes annotations of requests and
    answers for models to validate, so there are none."""

    def setup(self, device):  # noqa: ARG002 (LitServe's signature)
        """Load the model, once in each worker process."""
        self.model = Model()

    def decode_request(self, request):
        """Return the uploaded bytes."""
        return request["image"].file.read()

    def predict(self, data):
        """Classify one image."""
        return self.model.answer(data)

    def encode_response(self, output):
        """Return the answer as it is."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(),
        accelerator="cpu",
        workers_per_device=int(os.environ["PEER_WORKERS"]),
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
