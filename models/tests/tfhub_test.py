"""Tests of models/transfer.py and models/tfhub.py with HTTP servers that resume, interrupt, and fail."""

import contextlib
import gzip
import hashlib
import io
import os
import pathlib
import random
import subprocess
import sys
import tarfile
import tempfile
import unittest
import unittest.mock
import urllib.request

MODELS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(MODELS))

import package_index
import tfhub
from file_server import FileServer
from transfer import RemoteFile


def tarball(seed=0, names=("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")):
    """A tarball of files with random contents, 600 kB in all."""
    contents = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo("./" + name)
            member.size = 200_000
            archive.addfile(member, io.BytesIO(contents.randbytes(member.size)))
    return gzip.compress(buffer.getvalue(), mtime=0)


class DownloadTest(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.enter = stack.enter_context
        self.folder = self.enter(tempfile.TemporaryDirectory())
        self.output = self.enter(contextlib.redirect_stdout(io.StringIO()))
        self.enter(unittest.mock.patch.object(package_index.time, "sleep"))

    def server(self, *arguments, **options):
        return self.enter(FileServer(*arguments, **options))


class PinnedFile(DownloadTest):
    """A file whose size and digest are known, such as a wheel."""

    BODY = bytes(300_000)

    def setUp(self):
        super().setUp()
        self.part = os.path.join(self.folder, "file.part")

    def download(self, server):
        def request(headers):
            return urllib.request.urlopen(urllib.request.Request(server.address, headers=headers))

        RemoteFile("file", "the index", request, size=len(self.BODY)).download(self.part, attempts=2)

    def test_interrupted_download_resumes_without_a_validator(self):
        server = self.server(self.BODY, cuts=[100_000, 100_000], etag=None)
        self.download(server)
        self.assertEqual(pathlib.Path(self.part).read_bytes(), self.BODY)
        self.assertEqual(server.requests, [None, "bytes=100000-", "bytes=200000-"])
        self.assertEqual(os.listdir(self.folder), ["file.part"])
        self.download(server)
        self.assertEqual(len(server.requests), 3)

    def test_failed_download_resumes_in_the_next_run(self):
        server = self.server(self.BODY, cuts=[100_000, 0, 0, 0])
        with self.assertRaises(package_index.Failure):
            self.download(server)
        server.cuts.clear()
        self.download(server)
        self.assertEqual(server.requests[-1], "bytes=100000-")
        self.assertEqual(pathlib.Path(self.part).read_bytes(), self.BODY)

    def test_larger_file_is_rejected_and_deleted(self):
        with self.assertRaisesRegex(package_index.Failure, "has more than 300000 bytes"):
            self.download(self.server(self.BODY + b"more"))
        self.assertEqual(os.listdir(self.folder), [])
        pathlib.Path(self.part).write_bytes(self.BODY + b"more")
        self.download(self.server(self.BODY))
        self.assertEqual(pathlib.Path(self.part).read_bytes(), self.BODY)


class TfHub(DownloadTest):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, tfhub.NAME)

    def assert_fetched(self, body):
        self.assertEqual(pathlib.Path(self.path).read_bytes(), body)
        recorded = f"{hashlib.sha256(body).hexdigest()}  {tfhub.NAME}\n"
        self.assertEqual(pathlib.Path(self.path + ".sha256").read_text(), recorded)
        self.assertEqual(sorted(os.listdir(self.folder)), [tfhub.NAME, tfhub.NAME + ".sha256"])

    def failure(self, *addresses, of=package_index.Failure):
        with self.assertRaises(of) as raised:
            tfhub.fetch(self.folder, addresses)
        message = str(raised.exception)
        self.assertEqual(len(message.splitlines()), 1)
        return message

    def test_second_fetch_downloads_nothing(self):
        body = tarball()
        server = self.server(body)
        for _ in range(2):
            self.assertEqual(tfhub.fetch(self.folder, [server.address]), self.path)
            self.assert_fetched(body)
        self.assertEqual(server.requests, [None])

    def test_interrupted_download_resumes(self):
        body = tarball()
        server = self.server(body, cuts=[100_000, 200_000])
        tfhub.fetch(self.folder, [server.address])
        self.assert_fetched(body)
        self.assertEqual(server.requests, [None, "bytes=100000-", "bytes=300000-"])

    def test_interrupted_run_resumes_in_the_next_run(self):
        body = tarball()
        server = self.server(body, cuts=[100_000, 0, 0, 0])
        self.failure(server.address)
        server.cuts.clear()
        tfhub.fetch(self.folder, [server.address])
        self.assert_fetched(body)
        self.assertEqual(server.requests[-1], "bytes=100000-")

    def test_changed_file_starts_over(self):
        server = self.server(tarball(), cuts=[100_000, 0, 0, 0])
        self.failure(server.address)
        server.body, server.etag = tarball(seed=1), '"2"'
        server.cuts.clear()
        tfhub.fetch(self.folder, [server.address])
        self.assert_fetched(server.body)

    def test_server_without_ranges_starts_over(self):
        for options in ({"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}):
            with self.subTest(**options):
                server = self.server(tarball(), cuts=[100_000], **options)
                tfhub.fetch(self.folder, [server.address])
                self.assert_fetched(server.body)
                os.remove(self.path)

    def test_size_may_be_unknown(self):
        server = self.server(tarball(), length=False)
        tfhub.fetch(self.folder, [server.address])
        self.assert_fetched(server.body)

    def test_addresses_are_tried_in_turn(self):
        missing, page, whole = self.server(status=404), self.server(b"<html>log in</html>"), self.server(tarball())
        other = self.server(tarball(names=["readme.txt"]))
        tfhub.fetch(self.folder, [missing.address, page.address, other.address, whole.address])
        self.assert_fetched(whole.body)
        self.assertIn("HTTP 404", self.output.getvalue())
        self.assertIn("contains no saved_model.pb", self.output.getvalue())

    def test_part_of_one_address_is_not_continued_from_another(self):
        first, second = self.server(tarball(), cuts=[1000, 0, 0, 0]), self.server(tarball(seed=1))
        tfhub.fetch(self.folder, [first.address, second.address])
        self.assert_fetched(second.body)
        self.assertEqual(second.requests, [None])

    def test_no_network_names_what_to_do(self):
        with FileServer() as server:
            address = server.address
        message = self.failure(address, "http://host.invalid/3.tar.gz")
        self.assertIn(f"download {address} on another machine", message)
        self.assertIn("make run SOURCE=path", message)

    def test_later_download_that_differs_is_reported(self):
        server = self.server(tarball())
        tfhub.fetch(self.folder, [server.address])
        before = hashlib.sha256(server.body).hexdigest()
        os.remove(self.path)
        server.body, server.etag = tarball(seed=1), '"2"'
        # Also if the other address fails for another reason.
        missing = self.server(status=404)
        message = self.failure(server.address, missing.address, of=tfhub.FileChanged)
        self.assertIn(f"has the sha256 {hashlib.sha256(server.body).hexdigest()} instead of {before}", message)
        self.assertFalse(os.path.exists(self.path))
        # The next address may have the known file.
        known = self.server(tarball())
        tfhub.fetch(self.folder, [server.address, known.address])
        self.assert_fetched(known.body)
        # After the record is deleted, the new one is used without another download.
        os.remove(self.path)
        self.failure(server.address)
        os.remove(self.path + ".sha256")
        requests = len(server.requests)
        tfhub.fetch(self.folder, [server.address])
        self.assert_fetched(server.body)
        self.assertEqual(len(server.requests), requests)

    def test_damaged_file_is_downloaded_again(self):
        server = self.server(tarball())
        tfhub.fetch(self.folder, [server.address])
        with open(self.path, "ab") as file:
            file.write(b"more")
        tfhub.fetch(self.folder, [server.address])
        self.assert_fetched(server.body)
        self.assertIn("is damaged", self.output.getvalue())

    def test_copied_file_is_checked_and_recorded(self):
        body = tarball()
        pathlib.Path(self.path).write_bytes(body)
        tfhub.fetch(self.folder, [])
        self.assert_fetched(body)
        os.remove(self.path + ".sha256")
        pathlib.Path(self.path).write_bytes(body[:-1000])
        self.assertIn("damaged", self.failure())

    def test_command_prints_one_line_without_a_network(self):
        proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        environment = {**os.environ, **proxy, "XDG_CACHE_HOME": self.folder, "no_proxy": "", "NO_PROXY": ""}
        command = [sys.executable, "-B", str(MODELS / "fetch.py"), "tfhub"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("make run SOURCE=path", done.stderr)


if __name__ == "__main__":
    unittest.main()
