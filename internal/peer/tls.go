package peer

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/milena-mq/milena/internal/vfs"
)

const (
	// lookAgain is how often the certificate's files are looked at for changes, at most.
	lookAgain = time.Second
	// maxPEM is the largest PEM file that is read, bytes.
	maxPEM = 1 << 20
)

// TLS makes the two sides of mutual TLS 1.3 between brokers: whoever connects shows a certificate of the
// authority, and so does whoever is connected to. All three are PEM files. The certificate and its key are
// read again when they change, for connections made after that; files that cannot be read or do not fit
// together leave the ones in use in use, so that a half-written renewal harms nobody. The authority is read
// once: its change is a file with both, and a restart of one broker after the other.
//
// The server side does not compare the client's certificate with its address: brokers are the only ones
// that the authority signs for. The client side compares the host that it dialled.
func TLS(certFile, keyFile, caFile string) (server, client *tls.Config, err error) {
	return loadTLS(vfs.OS, time.Now, certFile, keyFile, caFile)
}

func loadTLS(fsys vfs.FS, now func() time.Time, certFile, keyFile, caFile string) (server, client *tls.Config, err error) {
	k := &keyPair{fs: fsys, now: now, cert: certFile, key: keyFile}
	k.mu.looked, k.mu.seen = now(), k.stamp()
	if err := k.readLocked(); err != nil {
		return nil, nil, fmt.Errorf("peer TLS: %w", err)
	}
	text, err := vfs.ReadFile(fsys, caFile, maxPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("peer TLS: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("peer TLS: %s: no certificate in it", caFile)
	}
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.current(), nil },
		NextProtos:     []string{"h2", "http/1.1"}, // gRPC refuses a server that does not name h2
		// A ticket would outlive the certificate it stands for.
		SessionTicketsDisabled: true,
	}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.current(), nil },
	}
	return server, client, nil
}

// keyPair is two files and what was last read from them.
type keyPair struct {
	fs        vfs.FS
	now       func() time.Time
	cert, key string

	mu struct {
		sync.Mutex
		pair   *tls.Certificate
		seen   string // the files' stamp when they were read, or tried
		looked time.Time
	}
}

// current is what to use for a handshake that begins now.
func (k *keyPair) current() *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); now.Sub(k.mu.looked) >= lookAgain {
		k.mu.looked = now
		if s := k.stamp(); s != k.mu.seen && k.readLocked() == nil {
			k.mu.seen = s
		}
	}
	return k.mu.pair
}

// stamp changes when a file does.
func (k *keyPair) stamp() string {
	s := ""
	for _, p := range []string{k.cert, k.key} {
		if st, err := k.fs.Stat(p); err == nil {
			s += fmt.Sprint(st.Size(), " ", st.ModTime().UnixNano(), " ")
		}
	}
	return s
}

func (k *keyPair) readLocked() error {
	cert, err := vfs.ReadFile(k.fs, k.cert, maxPEM)
	if err != nil {
		return err
	}
	key, err := vfs.ReadFile(k.fs, k.key, maxPEM)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", k.cert, k.key, err)
	}
	k.mu.pair = &pair
	return nil
}
