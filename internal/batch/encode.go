package batch

import (
	"encoding/binary"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// encoder compresses into w; Close flushes and gives it back to its pool.
type encoder struct {
	io.WriteCloser
	key encoderKey
	gz  *gzip.Writer
	sn  *xerialWriter
	lz  *lz4.Writer
	zs  *zstd.Encoder
}

type encoderKey struct {
	codec Codec
	level int // in the library's own scale
}

var encoders sync.Map // encoderKey to *sync.Pool: few levels are in use at a time

// libraryLevel maps Kafka's compression.<codec>.level (0: the codec's default) to the library's scale.
func libraryLevel(c Codec, level int) int {
	switch c {
	case Gzip:
		if level < 1 || level > 9 {
			return gzip.DefaultCompression
		}
		return level
	case LZ4:
		// Kafka's default 9 is the fast compressor; the other levels are the high compressor.
		if level <= 0 || level == 9 {
			return int(lz4.Fast)
		}
		return 1 << (8 + min(level, 9))
	case Zstd:
		if level == 0 {
			level = 3
		}
		return int(zstd.EncoderLevelFromZstd(level))
	}
	return 0
}

func newEncoder(c Codec, level int, w io.Writer) *encoder {
	key := encoderKey{c, libraryLevel(c, level)}
	p, _ := encoders.LoadOrStore(key, new(sync.Pool))
	e, _ := p.(*sync.Pool).Get().(*encoder)
	if e == nil {
		e = &encoder{key: key}
		e.create()
	}
	switch c {
	case Gzip:
		e.gz.Reset(w)
	case Snappy:
		e.sn.reset(w)
	case LZ4:
		e.lz.Reset(w)
	case Zstd:
		e.zs.Reset(w)
	}
	return e
}

// create makes the compressor. The options are constants, so the constructors cannot fail; should one, level and
// options fall back to the library's defaults.
func (e *encoder) create() {
	switch e.key.codec {
	case Gzip:
		gz, err := gzip.NewWriterLevel(nil, e.key.level)
		if err != nil {
			gz = gzip.NewWriter(nil)
		}
		e.gz, e.WriteCloser = gz, gz
	case Snappy:
		e.sn = new(xerialWriter)
		e.WriteCloser = e.sn
	case LZ4:
		e.lz = lz4.NewWriter(nil)
		// 64 KiB blocks and no content checksum, as the Java client writes; the batch has its own checksum.
		_ = e.lz.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1),
			lz4.CompressionLevelOption(lz4.CompressionLevel(e.key.level)))
		e.WriteCloser = e.lz
	case Zstd:
		zs, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(e.key.level)), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
		if err != nil {
			zs, _ = zstd.NewWriter(nil)
		}
		e.zs, e.WriteCloser = zs, zs
	}
}

// Close flushes what was written and returns the encoder to its pool.
func (e *encoder) Close() error {
	err := e.WriteCloser.Close()
	switch e.key.codec {
	case Gzip:
		e.gz.Reset(nil)
	case Snappy:
		e.sn.w = nil
	case LZ4:
		e.lz.Reset(nil)
	case Zstd:
		e.zs.Reset(nil)
	}
	if p, ok := encoders.Load(e.key); ok {
		p.(*sync.Pool).Put(e)
	}
	return err
}

// xerialWriter writes snappy in the framing of the Java client, 32 KiB of input per block.
type xerialWriter struct {
	w    io.Writer
	in   []byte
	out  []byte
	head bool
}

func (x *xerialWriter) reset(w io.Writer) { x.w, x.in, x.head = w, x.in[:0], false }

func (x *xerialWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), xerialBlock-len(x.in))
		x.in = append(x.in, p[:k]...)
		p = p[k:]
		if len(x.in) == xerialBlock {
			if err := x.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (x *xerialWriter) flush() error {
	if !x.head {
		x.head = true
		if _, err := x.w.Write(xerialHeader); err != nil {
			return err
		}
	}
	if len(x.in) == 0 {
		return nil
	}
	need := 4 + snappy.MaxEncodedLen(xerialBlock)
	if cap(x.out) < need {
		x.out = make([]byte, need)
	}
	b := snappy.Encode(x.out[4:need], x.in)
	x.in = x.in[:0]
	out := x.out[:4+len(b)]
	binary.BigEndian.PutUint32(out, uint32(len(b)))
	_, err := x.w.Write(out)
	return err
}

func (x *xerialWriter) Close() error { return x.flush() }
