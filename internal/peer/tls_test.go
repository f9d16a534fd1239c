package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/vfs"
)

// pki is an authority and one broker's certificate for 127.0.0.1.
type pki struct {
	cert, key, ca string // files
	caCert        *x509.Certificate
	caKey         *ecdsa.PrivateKey
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	dir := t.TempDir()
	p := &pki{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), ca: filepath.Join(dir, "ca.pem")}
	var err error
	if p.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	p.caCert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, p.caCert, p.caCert, &p.caKey.PublicKey, p.caKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.ca, "CERTIFICATE", der)
	p.issue(t, 2)
	return p
}

// issue writes a new certificate and key.
func (p *pki) issue(t testing.TB, serial int64) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "broker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, p.caCert, &k.PublicKey, p.caKey)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.key, "EC PRIVATE KEY", kb)
	write(t, p.cert, "CERTIFICATE", der)
}

func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRenewedCertificateIsUsed(t *testing.T) {
	p := newPKI(t)
	now := time.Unix(1000, 0)
	server, client, err := loadTLS(vfs.OS, func() time.Time { return now }, p.cert, p.key, p.ca)
	if err != nil {
		t.Fatal(err)
	}
	serials := func() [2]int64 {
		t.Helper()
		s, err := server.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return [2]int64{s.Leaf.SerialNumber.Int64(), c.Leaf.SerialNumber.Int64()}
	}
	if got := serials(); got != [2]int64{2, 2} {
		t.Errorf("serials %v", got)
	}
	p.issue(t, 3)
	later := time.Now().Add(time.Minute) // the clock of files may be coarse
	if err := os.Chtimes(p.cert, later, later); err != nil {
		t.Fatal(err)
	}
	if got := serials(); got != [2]int64{2, 2} {
		t.Errorf("serials %v: the files are looked at once a second", got)
	}
	now = now.Add(lookAgain)
	if got := serials(); got != [2]int64{3, 3} {
		t.Errorf("serials %v after a renewal", got)
	}
	// Half a renewal: the certificate is there, its key is not yet.
	key, err := os.ReadFile(p.key)
	if err != nil {
		t.Fatal(err)
	}
	p.issue(t, 4)
	fresh, err := os.ReadFile(p.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.key, key, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	if got := serials(); got != [2]int64{3, 3} {
		t.Errorf("serials %v after half a renewal", got)
	}
	if err := os.WriteFile(p.key, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	if got := serials(); got != [2]int64{4, 4} {
		t.Errorf("serials %v after the whole", got)
	}
	if err := os.Remove(p.cert); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	if got := serials(); got != [2]int64{4, 4} {
		t.Errorf("serials %v without a file", got)
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	p := newPKI(t)
	for _, c := range [][3]string{{"none", p.key, p.ca}, {p.cert, "none", p.ca}, {p.cert, p.key, "none"}, {p.key, p.cert, p.ca}, {p.cert, p.key, p.key}} {
		_, _, err := TLS(c[0], c[1], c[2])
		if err == nil || !strings.HasPrefix(err.Error(), "peer TLS: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", c, err)
		}
	}
}
