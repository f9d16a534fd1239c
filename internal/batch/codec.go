package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec is how the records of a batch are compressed.
type Codec int8

// The codes are Kafka's. Producer is not a codec of a batch but the topic setting "keep what the producer chose".
const (
	Producer Codec = -1
	None     Codec = 0
	Gzip     Codec = 1
	Snappy   Codec = 2
	LZ4      Codec = 3
	Zstd     Codec = 4
)

var codecNames = map[Codec]string{Producer: "producer", None: "none", Gzip: "gzip", Snappy: "snappy", LZ4: "lz4", Zstd: "zstd"}

func (c Codec) String() string {
	if s, ok := codecNames[c]; ok {
		return s
	}
	return fmt.Sprintf("codec %d", int8(c))
}

// ParseCodec reads a value of compression.type: none, uncompressed, gzip, snappy, lz4, zstd or producer.
func ParseCodec(s string) (Codec, error) {
	if s == "uncompressed" {
		return None, nil
	}
	for c, name := range codecNames {
		if name == s {
			return c, nil
		}
	}
	return None, fmt.Errorf("compression type %q: not one of none, uncompressed, gzip, snappy, lz4, zstd, producer", s)
}

func (c Codec) known() bool { return c >= None && c <= Zstd }

// decoder is one pooled decompressor. Close gives it back; it must not be used afterwards.
type decoder struct {
	io.Reader
	src   bytes.Reader
	codec Codec
	gz    *gzip.Reader
	sn    *snappyReader
	lz    *lz4.Reader
	zs    *zstd.Decoder
}

var decoders [Zstd + 1]sync.Pool

// newDecoder opens compressed bytes for reading. Errors wrap ErrCodec.
func newDecoder(c Codec, p []byte) (*decoder, error) {
	if !c.known() || c == None {
		return nil, fmt.Errorf("%w: unknown codec %d", ErrCodec, int8(c))
	}
	d, _ := decoders[c].Get().(*decoder)
	if d == nil {
		d = &decoder{codec: c}
	}
	d.src.Reset(p)
	if err := d.open(p); err != nil {
		d.Close()
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			return nil, fmt.Errorf("%w: %s: %v", ErrInflated, c, err)
		}
		return nil, fmt.Errorf("%w: %s: %v", ErrCodec, c, err)
	}
	return d, nil
}

func (d *decoder) open(p []byte) (err error) {
	switch d.codec {
	case Gzip:
		if d.gz == nil {
			d.gz = new(gzip.Reader)
		}
		d.Reader, err = d.gz, d.gz.Reset(&d.src)
	case Snappy:
		if d.sn == nil {
			d.sn = new(snappyReader)
		}
		d.Reader, err = d.sn, d.sn.reset(p)
	case LZ4:
		if d.lz == nil {
			d.lz = lz4.NewReader(&d.src)
		} else {
			d.lz.Reset(&d.src)
		}
		d.Reader = d.lz
	case Zstd:
		err = d.openZstd(p)
	}
	return err
}

func (d *decoder) openZstd(p []byte) (err error) {
	if window, claim := zstdFrame(p); window > zstdSmallWindow {
		return d.openLargeZstd(p, claim)
	}
	if d.zs == nil {
		if d.zs, err = newZstd(zstdSmallWindow); err != nil {
			return err
		}
	}
	d.Reader = d.zs
	return d.zs.Reset(&d.src)
}

// largeZstd decodes frames with a large window in one piece. A stream decoder would take the window, up to 128 MiB, for a batch of
// a few bytes, and zstd -22 asks for that whatever the batch's size; in one piece the memory follows the content. At most
// zstdLargeSlots run at once; others wait, and as nothing is called back meanwhile, nobody waits for himself.
var largeZstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(zstdLargeSlots), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(zstdLargeWindow), zstd.WithDecoderMaxMemory(maxRebuild))
})

func (d *decoder) openLargeZstd(p []byte, claim uint64) error {
	if claim > uint64(len(p))*zstdMaxRatio+zstdMaxRatio { // refused before the claimed length is allocated
		return errors.New("content size is impossible")
	}
	z, err := largeZstd()
	if err != nil {
		return err
	}
	out, err := z.DecodeAll(p, nil)
	if err != nil {
		return err
	}
	d.src.Reset(out)
	d.Reader = &d.src
	return nil
}

func newZstd(window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(window))
}

// zstdFrame is the window that the first frame asks for and the content size it claims, 0 if the header cannot be read (the
// decoder will say so).
func zstdFrame(p []byte) (window, claim uint64) {
	var h zstd.Header
	if err := h.Decode(p); err != nil {
		return 0, 0
	}
	if h.HasFCS {
		claim = h.FrameContentSize
	}
	if h.SingleSegment {
		return h.FrameContentSize, claim
	}
	return h.WindowSize, claim
}

// Close returns the decoder to its pool, without the input: a pooled reference would keep a request buffer alive.
func (d *decoder) Close() {
	d.src.Reset(nil)
	d.Reader = nil
	if d.sn != nil {
		d.sn.src = nil
	}
	if d.zs != nil {
		_ = d.zs.Reset(nil)
	}
	decoders[d.codec].Put(d)
}

// The framing the Java client puts around snappy blocks (from xerial's snappy-java): magic, two versions, then blocks
// with a 4-byte length each.
var (
	xerialMagic  = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}
	xerialHeader = append(append([]byte(nil), xerialMagic...), 0, 0, 0, 1, 0, 0, 0, 1)
)

const xerialBlock = 32 << 10

var errSnappy = errors.New("bad block")

// snappyReader reads both forms: xerial frames block by block, or one raw block as librdkafka may send.
type snappyReader struct {
	src    []byte
	framed bool
	buf    []byte // decoded block; kept for reuse
	rest   []byte // part of buf not yet read
}

func (r *snappyReader) reset(p []byte) error {
	r.src, r.rest, r.framed = p, nil, false
	if len(p) >= len(xerialHeader) && bytes.Equal(p[:len(xerialMagic)], xerialMagic) {
		r.framed, r.src = true, p[len(xerialHeader):]
	}
	if cap(r.buf) > 1<<20 {
		r.buf = nil // a rare giant block must not stay in the pool
	}
	return nil
}

func (r *snappyReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if len(r.src) == 0 {
			return 0, io.EOF
		}
		if err := r.block(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *snappyReader) block() error {
	in := r.src
	if r.framed {
		if len(in) < 4 {
			return io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(in))
		if n > int64(len(in)-4) {
			return io.ErrUnexpectedEOF
		}
		in, r.src = in[4:4+n], in[4+n:]
	} else {
		r.src = nil
	}
	n, err := snappy.DecodedLen(in)
	if err != nil {
		return err
	}
	if n > snappyMaxRatio*len(in)+16 { // refused before the claimed length is allocated
		return errSnappy
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	// The fast decoder also accepts the "repeat" copies of s2, which no Kafka client can read; they are refused first.
	if !plainSnappy(in) {
		return errSnappy
	}
	out, err := snappy.Decode(r.buf[:n], in)
	if err != nil {
		return err
	}
	r.rest = out
	return nil
}

// plainSnappy walks the tags of a block and tells whether no copy has offset 0. A block that is cut short passes: the decoder
// refuses it.
func plainSnappy(p []byte) bool {
	_, n := binary.Uvarint(p)
	for p = p[max(n, 0):]; len(p) > 0; {
		tag := p[0]
		var size int
		switch tag & 3 {
		case 0:
			size = 1 + int(tag>>2) + 1
			if x := int(tag >> 2); x >= 60 {
				k := x - 59 // bytes of the length
				if len(p) < 1+k {
					return true
				}
				v := 0
				for i := k; i > 0; i-- {
					v = v<<8 | int(p[i])
				}
				size = 1 + k + v + 1
			}
		case 1:
			size = 2
			if len(p) >= 2 && tag>>5 == 0 && p[1] == 0 {
				return false
			}
		case 2:
			size = 3
			if len(p) >= 3 && p[1]|p[2] == 0 {
				return false
			}
		case 3:
			size = 5
			if len(p) >= 5 && p[1]|p[2]|p[3]|p[4] == 0 {
				return false
			}
		}
		if size > len(p) {
			return true
		}
		p = p[size:]
	}
	return true
}
