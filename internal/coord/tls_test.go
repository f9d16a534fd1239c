package coord_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/peer"
)

// certificates writes an authority and a certificate for 127.0.0.1, both sides.
func certificates(t testing.TB) (cert, key, ca string) {
	t.Helper()
	dir := t.TempDir()
	made := func(name, kind string, der []byte, err error) string {
		if err == nil {
			name = filepath.Join(dir, name)
			err = os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a"}, NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey, leafKey := newKey(), newKey()
	der, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	ca = made("ca.pem", "CERTIFICATE", der, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "b"}, NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, rootKey)
	cert = made("cert.pem", "CERTIFICATE", der, err)
	der, err = x509.MarshalECPrivateKey(leafKey)
	return cert, made("key.pem", "EC PRIVATE KEY", der, err), ca
}

func TestThreeMembersAndAJoinerOverTLS(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	cert, key, ca := certificates(t)
	server, client, err := peer.TLS(cert, key, ca)
	if err != nil {
		t.Fatal(err)
	}
	nodes, peers := prepare(t, 3)
	for i, n := range nodes { // the same ports again, with TLS
		_ = n.mux.Close()
		l, err := net.Listen("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		n.wire = &wire{Listener: l, conns: make(map[net.Conn]struct{})}
		n.mux = peer.Mux(tls.NewListener(n.wire, server))
		peers[i].Addr = n.addr
	}
	together(t, nodes, peers, func(o *coord.EtcdOptions) {
		o.TLS = &coord.TLS{Certificate: cert, Key: key, CA: ca, Client: client}
		o.Local = net.IPv4(127, 0, 0, 1)
	})
	n, term := lead(t, ctx, nodes...)
	r := remote(t, func(o *coord.RemoteOptions) { o.TLS, o.Local = client, net.IPv4(127, 0, 0, 1) }, nodes[0].addr)
	tail, err := r.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	rev := mustAppend(t, ctx, n, term, "k", "v")
	select {
	case b := <-tail:
		if b.Rev != rev {
			t.Errorf("tail: %+v", b)
		}
	case <-ctx.Done():
		t.Fatal("nothing came over TLS")
	}
	awaitVoters(t, ctx, n, 3)
	// Whoever has no certificate gets nothing.
	if s, err := coord.OpenRemote(coord.RemoteOptions{Endpoints: []string{nodes[0].addr}, Open: 300 * time.Millisecond}); err == nil {
		_ = s.Close()
		t.Error("the store is read without TLS")
	}
}
