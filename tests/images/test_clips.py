"""Decoding clips: which frames are read, from files, bytes, arrays and lists of images."""

import builtins
import io

import numpy as np
import pytest
from helpers_images import content, levels, write_image
from helpers_videos import gif, moving_squares, write_gif, write_mp4
from PIL import Image

from finetune_tf.errors import DataError, MissingExtraError
from finetune_tf.images import CheckedClips, ImageProcessor, decode, decode_clip
from finetune_tf.images.clips import check_clip, frame_numbers


def grey(count, size=(8, 12)):
    """A clip whose frames have the levels 0, 10, 20 and so on."""
    return np.stack([np.full((*size, 3), 10 * i, "uint8") for i in range(count)])


def numbers(frames):
    return [int(round(frame.mean() / 10)) for frame in frames]


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
def test_frames_are_even_and_reach_both_ends(count, frames):
    if count < frames:
        return
    found = frame_numbers(count, frames)
    steps = np.diff(found)
    assert len(found) == frames and (steps > 0).all()
    if frames > 1:
        assert (found[0], found[-1]) == (0, count - 1)
        assert steps.max() - steps.min() <= 1
    if count == frames:
        assert found == list(range(count))


def test_a_clip_may_be_read_completely_though_it_is_short():
    assert frame_numbers(3, 9, at_most=True) == [0, 1, 2]


class TestKinds:
    def test_arrays_and_lists_of_images(self, tmp_path):
        clip = grey(9)
        assert numbers(decode_clip(clip, 5)) == [0, 2, 4, 6, 8]
        images = [Image.fromarray(frame) for frame in clip]
        assert numbers(decode_clip(images, 5)) == [0, 2, 4, 6, 8]
        files = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(4)]
        np.testing.assert_array_equal(decode_clip(files, 2)[1], levels(seed=3))

    def test_an_image_is_a_clip_of_one_frame_with_the_levels_of_an_image(self):
        image = Image.fromarray(levels(size=(8, 12)))
        exif = image.getexif()
        exif[0x0112] = 6  # turned by a quarter
        wide = Image.fromarray(np.array([[0, 300], [40_000, 65_535]], "uint16"))
        for each, options in ((image, {"exif": exif}), (wide, {})):
            buffer = io.BytesIO()
            each.save(buffer, "PNG", **options)
            (frame,) = decode_clip(buffer.getvalue(), 1)
            np.testing.assert_array_equal(frame, decode(buffer.getvalue()))

    def test_animated_images(self, tmp_path):
        path = write_gif(tmp_path / "clip.gif", grey(9))
        assert numbers(decode_clip(path, 3)) == [0, 4, 8]
        assert numbers(decode_clip(str(path), 3)) == [0, 4, 8]
        assert numbers(decode_clip(path.read_bytes(), 9)) == list(range(9))
        webp = tmp_path / "clip.webp"
        first, *others = map(Image.fromarray, grey(9))
        first.save(webp, "WEBP", save_all=True, append_images=others, lossless=True)
        assert numbers(decode_clip(webp, 3)) == [0, 4, 8]

    @pytest.mark.parametrize("ending", ["mp4", "avi", "mkv"])
    def test_video_files(self, tmp_path, ending):
        pytest.importorskip("av")
        path = write_mp4(tmp_path / f"clip.{ending}", grey(20, (32, 48)))
        found = decode_clip(path, 5)
        assert [frame.shape for frame in found] == [(32, 48, 3)] * 5
        assert numbers(found) == [0, 5, 10, 14, 19]
        assert numbers(decode_clip(path.read_bytes(), 5)) == [0, 5, 10, 14, 19]
        check_clip(path)


class TestErrors:
    def test_too_few_frames(self):
        for clip in (grey(1), [levels()], content(levels()), content(levels(), "JPEG")):
            with pytest.raises(DataError, match="it has 1 frame, but the model reads 3 of each"):
                decode_clip(clip, 3)
        with pytest.raises(DataError, match=r"it has 2 frames, .* ft.load\(…, frames=…\)"):
            decode_clip(gif(grey(2)), 3)

    def test_images_of_different_sizes(self):
        with pytest.raises(DataError, match="differ in size, for example 4 x 5 and 6 x 7 pixels"):
            decode_clip([levels(size=(4, 5)), levels(size=(6, 7)), levels(size=(4, 5))], 3)

    @pytest.mark.parametrize("check", [check_clip, lambda clip: decode_clip(clip, 2)])
    def test_what_is_no_clip(self, check, tmp_path):
        (tmp_path / "empty.mp4").touch()
        cases = {
            "the file is empty, 0 bytes": [b"", tmp_path / "empty.mp4"],
            "there is no such file": [tmp_path / "no.mp4"],
            "it is a folder": [tmp_path],
            r"array of the shape \(3, 4, 3\)": [np.zeros((3, 4, 3), "uint8")],
            "array of float32": [np.zeros((3, 4, 4, 3), "float32")],
            "it is not a clip that can be decoded|it is not a clip of a known": [b"GIF89a" + b"x"],
        }
        for reason, clips in cases.items():
            for clip in clips:
                with pytest.raises(DataError, match=reason):
                    check(clip)

    def test_lists_name_their_images(self, tmp_path):
        with pytest.raises(DataError, match="its frame 1 '.*no.png': there is no such file"):
            check_clip([levels(), tmp_path / "no.png"])
        with pytest.raises(DataError, match="its frame 0: the file is empty, 0 bytes"):
            decode_clip([b"", levels()], 2)
        with pytest.raises(DataError, match="an empty list"):
            check_clip([])

    def test_files_that_are_no_videos(self, tmp_path):
        pytest.importorskip("av")
        whole = write_mp4(tmp_path / "clip.mp4", grey(20, (32, 48))).read_bytes()
        for damaged in (b"some text", whole[: len(whole) // 2], whole[:40]):
            with pytest.raises(DataError, match="it is not a clip that can|has no video stream"):
                check_clip(damaged)

    def test_a_missing_package_is_named(self, monkeypatch):
        found = builtins.__import__

        def without_av(name, *args, **kwargs):
            if name == "av":
                raise ImportError(name)
            return found(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_av)
        with pytest.raises(MissingExtraError, match=r"pip install 'finetune-tf\[video\]'"):
            check_clip(b"\x00\x00\x00\x20ftypisom and more")


def test_clips_are_prepared_once_for_each_number_of_frames():
    clips, _ = moving_squares(1, seed=0)
    column = CheckedClips(clips)
    processor = ImageProcessor.from_config({"size": 16}, "ViTImageProcessor")
    title = "row {}".format
    prepared = column.prepared(processor, title, frames=3)
    assert prepared.shape == (2, 3, 16, 16, 3)
    assert prepared is column.prepared(processor, title, frames=3)
    assert prepared is not column.prepared(processor, title, frames=5)
    for place, number in enumerate((0, 4, 8)):
        np.testing.assert_array_equal(prepared[1][place], processor(clips[1][number]))
    assert prepared.batch(np.array([1, 0])).shape == (2, 3, 16, 16, 3)
