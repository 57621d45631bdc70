package backscroll

// Files of several parts, from and into streams.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

// Rule: a file of several parts goes up from a stream and comes down as it was, also over a restart.
func TestFileOfSeveralParts(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	content := make([]byte, 9<<20+7)
	_, err := rand.NewChaCha8([32]byte{}).Read(content)
	must(t, err)
	media, err := client.Upload(ctx, iotest.HalfReader(bytes.NewReader(content)), "image/png", &UploadOptions{UploaderID: "ada"})
	must(t, err)
	digest := sha256.Sum256(content)
	same(t, []any{media.Size, media.Parts, media.MIME, media.UploaderID, media.SHA256},
		[]any{int64(len(content)), int64(3), "image/png", "ada", hex.EncodeToString(digest[:])})
	again, err := client.Upload(ctx, bytes.NewReader(content), "image/png", nil)
	must(t, err)
	same(t, again.ID, media.ID)

	var read bytes.Buffer
	restarting := writer(func(part []byte) (int, error) {
		if read.Len() == 0 {
			must(t, daemon.restart())
		}
		return read.Write(part)
	})
	found, err := client.Download(ctx, media.ID, restarting)
	must(t, err)
	same(t, found.ID, media.ID)
	same(t, bytes.Equal(read.Bytes(), content), true)
}

type writer func(part []byte) (int, error)

func (w writer) Write(part []byte) (int, error) { return w(part) }

// Rule: parts are of the maximum size, the last one of what is left, and an empty file has one.
func TestParts(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir, Timeout: longTimeout})
	for size, parts := range map[int]int64{0: 1, 1: 1, 4 << 20: 1, 4<<20 + 1: 2} {
		media, err := client.Upload(ctx, bytes.NewReader(make([]byte, size)), "text/plain", nil)
		must(t, err)
		same(t, []int64{media.Size, media.Parts}, []int64{int64(size), parts})
		_, err = client.Download(ctx, media.ID, io.Discard)
		must(t, err)
	}
	_, err := client.Download(ctx, "none", io.Discard)
	fails(t, err, ErrNotFound, `there is no media "none"`)
}

// Rule: a source or a target that fails ends it with that error, and a refusal with that.
func TestMediaThatFails(t *testing.T) {
	t.Parallel()
	client := newTestClient(t, Options{DataDir: startTestDaemon(t).dataDir, Timeout: longTimeout})
	pulled := errors.New("the disk was pulled out")
	source := io.MultiReader(bytes.NewReader(make([]byte, 5<<20)), iotest.ErrReader(pulled))
	if _, err := client.Upload(ctx, source, "text/plain", nil); !errors.Is(err, pulled) {
		t.Fatalf("expected what went wrong, got %v", err)
	}
	media, err := client.Upload(ctx, bytes.NewReader(make([]byte, 5<<20)), "text/plain", nil)
	must(t, err)
	full := writer(func([]byte) (int, error) { return 0, pulled })
	if _, err := client.Download(ctx, media.ID, full); !errors.Is(err, pulled) {
		t.Fatalf("expected what went wrong, got %v", err)
	}
	_, err = client.Upload(ctx, bytes.NewReader([]byte("x")), "text/plain\x00", nil)
	fails(t, err, ErrInvalid)
	must(t, client.Close())
	_, err = client.Upload(ctx, bytes.NewReader([]byte("x")), "text/plain", nil)
	fails(t, err, ErrUnavailable)
}

// Rule: bytes that are damaged on the disk are an error, and never taken for the file.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	daemon := startTestDaemon(t)
	client := newTestClient(t, Options{DataDir: daemon.dataDir, Timeout: longTimeout})
	content := bytes.Repeat([]byte("damage me "), 1_000)
	media, err := client.Upload(ctx, bytes.NewReader(content), "text/plain", nil)
	must(t, err)
	count := 0
	must(t, filepath.WalkDir(daemon.dataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		stored, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(stored, content) {
			return nil
		}
		count++
		must(t, os.Chmod(path, 0o600))
		stored[17] ^= 1
		return os.WriteFile(path, stored, 0o600)
	}))
	same(t, count, 1)
	_, err = client.Download(ctx, media.ID, io.Discard)
	fails(t, err, ErrStorage)
}
