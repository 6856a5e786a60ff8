"""A store that speaks S3 (moto), with one bucket `lake`, on a free port of loopback. Prints its address, and ends with
its input. With the argument `ignore-conditions` it takes conditional writes for plain ones, as old stores do.
"""

import logging
import sys
from threading import Thread

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)

application = DomainDispatcherApplication(create_backend_app)


def without_conditions(environ, start_response):
    environ.pop("HTTP_IF_NONE_MATCH", None)
    return application(environ, start_response)


served = without_conditions if sys.argv[1:] == ["ignore-conditions"] else application
server = make_server("127.0.0.1", 0, served, threaded=True, request_handler=MotoRequestHandler)
Thread(target=server.serve_forever, daemon=True).start()

address = f"http://127.0.0.1:{server.server_port}"
region = "eu-central-1"
client = boto3.client(
    "s3", endpoint_url=address, region_name=region, aws_access_key_id="key", aws_secret_access_key="s3cret"
)
client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": region})
print(address, flush=True)
sys.stdin.read()
