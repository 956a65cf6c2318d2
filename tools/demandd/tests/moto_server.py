# SPDX-License-Identifier: GPL-2.0
# A server that speaks S3, and checks signatures as Amazon's own library makes
# them, with a bucket and a user. Prints its address and the user's key; ends
# with its standard input.
import os
import sys

# Making bucket, user and rights takes four questions that are not checked.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"
make = dict(
    endpoint_url=url,
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
)
boto3.client("s3", **make).create_bucket(Bucket="bucket")
iam = boto3.client("iam", **make)
iam.create_user(UserName="user")
key = iam.create_access_key(UserName="user")["AccessKey"]
iam.put_user_policy(
    UserName="user",
    PolicyName="all",
    PolicyDocument='{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}',
)
print(url, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
sys.stdin.read()
