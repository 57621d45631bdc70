package backscroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"time"

	"backscroll/language"
)

const (
	partsInFlight = 3
	// How long the daemon may take for each part that it reads again.
	readTimePerPart = 100 * time.Millisecond
)

// UploadOptions says more about a file.
type UploadOptions struct {
	// UploaderID is who uploaded it, as [Media] names it: 1 to 512 bytes, or empty.
	UploaderID string
}

// Upload uploads a file in parts, and returns its media, which may have existed. Parts that were put before an error are
// removed by the daemon within two days. nil stands for the zero value of UploadOptions.
//
// The context does not interrupt the source while that is read.
func (c *Client) Upload(ctx context.Context, source io.Reader, mime string, options *UploadOptions) (*Media, error) {
	if options == nil {
		options = &UploadOptions{}
	}
	putting, stop := context.WithCancel(ctx)
	defer stop() // of what is not put after an error
	digest := sha256.New()
	parts, err := c.putParts(putting, io.TeeReader(source, digest))
	if err != nil {
		return nil, err
	}
	if _, hasDeadline := ctx.Deadline(); !hasDeadline {
		timeout := c.options.Timeout + time.Duration(len(parts))*readTimePerPart
		longer, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		ctx = longer
	}
	media, err := c.PutMedia(ctx, PutMedia{Parts: parts, MIME: mime, UploaderID: options.UploaderID})
	if err != nil {
		return nil, err
	}
	return media, compare(digest, media)
}

// putParts puts what it reads in parts of the maximum size, at least one: an empty file has one empty part.
func (c *Client) putParts(ctx context.Context, source io.Reader) (parts []string, err error) {
	var underWay []*Pending[string]
	settleOldest := func() error {
		answer, err := underWay[0].Wait()
		parts, underWay = append(parts, answer.Result), underWay[1:]
		return err
	}
	for isLast := false; !isLast; {
		data, err := readPart(source)
		isLast = errors.Is(err, io.EOF)
		if err != nil && !isLast {
			return nil, err
		}
		if isLast && len(data) == 0 && len(parts)+len(underWay) > 0 {
			break
		}
		if len(underWay) == partsInFlight {
			if err := settleOldest(); err != nil {
				return nil, err
			}
		}
		underWay = append(underWay, Start(ctx, c, PutMediaPart{Data: data}))
	}
	for len(underWay) > 0 {
		if err := settleOldest(); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// readPart reads a part; the error is io.EOF if it is the last one. It holds no more than was read.
func readPart(source io.Reader) ([]byte, error) {
	var part bytes.Buffer
	count, err := io.CopyN(&part, source, language.MaxMediaPartBytes)
	if count == 0 {
		return []byte{}, err
	}
	return part.Bytes(), err
}

// Download writes the bytes of a file, part by part, and returns its media. It fails with [ErrNotFound] for an unknown one,
// and with [ErrStorage] at the end if the bytes are not those that were put.
func (c *Client) Download(ctx context.Context, mediaID string, target io.Writer) (*Media, error) {
	media, err := c.GetMedia(ctx, GetMedia{MediaID: mediaID})
	if err != nil {
		return nil, err
	}
	if media == nil {
		return nil, failure(ErrNotFound, "there is no media %q", mediaID)
	}
	asking, stop := context.WithCancel(ctx)
	defer stop() // of what is not read after an error
	digest := sha256.New()
	target = io.MultiWriter(target, digest)
	var underWay []*Pending[[]byte]
	for asked, part := int64(0), int64(0); part < media.Parts; part++ {
		for ; asked < media.Parts && len(underWay) < partsInFlight; asked++ {
			underWay = append(underWay, Start(asking, c, GetMediaPart{MediaID: mediaID, Part: asked}))
		}
		answer, err := underWay[0].Wait()
		if err != nil {
			return nil, err
		}
		underWay = underWay[1:]
		if _, err := target.Write(answer.Result); err != nil {
			return nil, err
		}
	}
	return media, compare(digest, media)
}

// compare tells whether a file has the bytes that its media says.
func compare(digest hash.Hash, media *Media) error {
	if hex.EncodeToString(digest.Sum(nil)) == media.SHA256 {
		return nil
	}
	return failure(ErrStorage, "media %q does not have the same bytes as the file", media.ID)
}
