package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// issued is one pair of files that cluster certs wrote.
type issued struct {
	Host        string `json:"host"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

func (a *app) clusterCerts() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use:   "certs DIR HOST...",
		Short: "Make certificates for TLS between brokers",
		Long: `Make a certificate and a key for each broker, for peer.tls.certificate, peer.tls.key and peer.tls.ca. HOST is
the name or address under which the other brokers reach it; more names for one broker are separated by +.

DIR gets ca.crt and ca.key at the first call; later calls use them, so that brokers can be added. Files that
are there are never replaced. Give each broker ca.crt and its own two files; ca.key stays with you: whoever
has it can be a broker.`,
		Example: `  milena cluster certs certs broker1.example.org broker2.example.org broker3.example.org
  milena cluster certs certs broker4.example.org+10.0.0.4`,
		Args: args(2, -1, "a directory and the name or address of each broker"),
		RunE: func(_ *cobra.Command, got []string) error {
			if days < 1 || days > 36500 {
				return usagef("--days %d: want 1 to 36500", days)
			}
			list, err := issue(got[0], got[1:], time.Now(), time.Duration(days)*24*time.Hour)
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) error {
				t := newTable("HOST", "CERTIFICATE", "KEY")
				for _, x := range list {
					t.row(x.Host, x.Certificate, x.Key)
				}
				return t.write(w)
			})
		},
	}
	c.Flags().IntVar(&days, "days", 3650, "how long the certificates are valid")
	return c
}

// hostPattern is what HOST may look like. It names files, so there is no separator of paths in it.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9])?$`)

// issue makes the authority where there is none, and a certificate for each host.
func issue(dir string, hosts []string, now time.Time, valid time.Duration) ([]issued, error) {
	for _, h := range hosts {
		for _, n := range strings.Split(h, "+") {
			if !hostPattern.MatchString(n) || strings.Contains(n, ":") && net.ParseIP(n) == nil {
				return nil, usagef("%q: want the name or address of a broker, without a port", n)
			}
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	ca, key, err := authority(dir, now, valid)
	if err != nil {
		return nil, err
	}
	list := []issued{}
	for _, h := range hosts {
		names := strings.Split(h, "+")
		x := issued{names[0], filepath.Join(dir, names[0]+".crt"), filepath.Join(dir, names[0]+".key")}
		if err := absent(x.Certificate, x.Key); err != nil {
			return nil, err
		}
		t, err := template(names[0], now, valid)
		if err != nil {
			return nil, err
		}
		// Both uses: each broker is server to some and client of others, with one certificate.
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		t.KeyUsage = x509.KeyUsageDigitalSignature
		for _, n := range names {
			if ip := net.ParseIP(n); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else {
				t.DNSNames = append(t.DNSNames, n)
			}
		}
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.CreateCertificate(rand.Reader, t, ca, &own.PublicKey, key)
		if err != nil {
			return nil, err
		}
		if err := writePair(x.Certificate, x.Key, der, own); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

func template(name string, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	// An hour back: the clocks of machines differ, and a certificate of the future is refused.
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(valid), BasicConstraintsValid: true}, nil
}

// authority reads the CA of dir, or makes it.
func authority(dir string, now time.Time, valid time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	crt, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	der, err := readPEM(crt, "CERTIFICATE")
	if errors.Is(err, fs.ErrNotExist) {
		if err := absent(keyFile); err != nil {
			return nil, nil, err
		}
		t, err := template("Milena brokers", now, valid)
		if err != nil {
			return nil, nil, err
		}
		t.IsCA, t.KeyUsage, t.MaxPathLenZero = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		if der, err = x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key); err != nil {
			return nil, nil, err
		}
		if err := writePair(crt, keyFile, der, key); err != nil {
			return nil, nil, err
		}
		ca, err := x509.ParseCertificate(der)
		return ca, key, err
	}
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", crt, err)
	}
	kder, err := readPEM(keyFile, "EC PRIVATE KEY")
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(kder)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	if !key.PublicKey.Equal(ca.PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s", keyFile, crt)
	}
	return ca, key, nil
}

func readPEM(file, kind string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, _ := pem.Decode(b)
	if p == nil || p.Type != kind {
		return nil, fmt.Errorf("%s: no %s in it", file, kind)
	}
	return p.Bytes, nil
}

func absent(files ...string) error {
	for _, f := range files {
		if _, err := os.Lstat(f); err == nil {
			return fmt.Errorf("%s is there already: it is never replaced", f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writePair writes the key first, for its owner only: a certificate without its key is of no use to
// anybody, and a later call would refuse to make it again.
func writePair(crt, keyFile string, der []byte, key *ecdsa.PrivateKey) error {
	kder, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeNew(keyFile, 0o600, &pem.Block{Type: "EC PRIVATE KEY", Bytes: kder}); err != nil {
		return err
	}
	return writeNew(crt, 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func writeNew(file string, mode os.FileMode, b *pem.Block) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, b), f.Close())
}
