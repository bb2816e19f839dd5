package poller

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// FingerprintVersion is the version of the rules that [FingerprintOf] follows. It rises with every change to what counts in a
// contact, so that a fingerprint made by an earlier release is never compared with one made by this.
const FingerprintVersion = 1

// Fingerprint identifies the significant content of a contact: a hash, and the version of the rules it was
// made by. Fingerprints of different versions say nothing about each other.
type Fingerprint struct {
	Version uint8
	Hash    [16]byte
}

// String returns the fingerprint as it stands in event headers: "1:<hex>".
func (f Fingerprint) String() string {
	return strconv.Itoa(int(f.Version)) + ":" + hex.EncodeToString(f.Hash[:])
}

// ParseFingerprint reads what [Fingerprint.String] wrote.
func ParseFingerprint(s string) (Fingerprint, error) {
	version, hash, ok := strings.Cut(s, ":")
	v, err := strconv.ParseUint(version, 10, 8)
	if !ok || err != nil || hex.DecodedLen(len(hash)) != len(Fingerprint{}.Hash) {
		return Fingerprint{}, fmt.Errorf("fingerprint %q is not of the form 1:<32 hex digits>", s)
	}
	f := Fingerprint{Version: uint8(v)}
	if _, err := hex.Decode(f.Hash[:], []byte(hash)); err != nil {
		return Fingerprint{}, fmt.Errorf("fingerprint %q is not of the form 1:<32 hex digits>", s)
	}
	return f, nil
}

// FingerprintOf returns the fingerprint of a contact document: the first 16 bytes of the SHA-256 of its significant content in
// normal form (see the package documentation). It fails only for what is no JSON object.
func FingerprintOf(raw jsontext.Value) (Fingerprint, error) {
	c, err := checked(raw)
	if err != nil {
		return Fingerprint{}, err
	}
	f, _ := c.fingerprint(nil)
	return f, nil
}

// fingerprint hashes the content, written as one JSON object into buf, which it returns for reuse.
func (c *content) fingerprint(buf []byte) (Fingerprint, []byte) {
	buf = append(buf[:0], '{')
	for i, e := range c.entries {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf, _ = jsontext.AppendQuote(buf, e.key)
		buf = append(buf, ':')
		buf = append(buf, c.normalOf(e)...)
	}
	buf = append(buf, '}')
	sum := sha256.Sum256(buf)
	return Fingerprint{Version: FingerprintVersion, Hash: [16]byte(sum[:16])}, buf
}
