// Package bootstraptoken reads the tokens with which machines that have no
// identity yet join a cluster. A token is ID.SECRET; the cluster keeps it in a
// Secret of kube-system that is named after the ID and says what the token may
// be used for, and for how long.
//
// The package is pure: API server, controllers and tools share it.
package bootstraptoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Where tokens and what is signed with them are kept.
const (
	// Namespace and SecretType are those of the Secrets of tokens, NamePrefix and
	// the token's ID their names.
	Namespace                     = metav1.NamespaceSystem
	SecretType  corev1.SecretType = "bootstrap.kubernetes.io/token"
	NamePrefix                    = "bootstrap-token-"
	UserPrefix                    = "system:bootstrap:"
	Group                         = "system:bootstrappers"
	groupPrefix                   = Group + ":"

	// ClusterInfoNamespace and ClusterInfoName are the ConfigMap that tells
	// joining machines of the cluster; KubeconfigKey is what is signed in it, and
	// SignaturePrefix and the ID of a token is where the signature is.
	ClusterInfoNamespace = metav1.NamespacePublic
	ClusterInfoName      = "cluster-info"
	KubeconfigKey        = "kubeconfig"
	SignaturePrefix      = "jws-kubeconfig-"
)

// Keys of the Secret.
const (
	keyID             = "token-id"
	keySecret         = "token-secret"
	keyExpiration     = "expiration"
	keyAuthentication = "usage-bootstrap-authentication"
	keySigning        = "usage-bootstrap-signing"
	keyGroups         = "auth-extra-groups"
)

const (
	idLength       = 6
	secretLength   = 16
	maxGroupSuffix = 256
)

// Token is a token as its Secret describes it.
type Token struct {
	ID string
	// Secret proves that the bearer has the token. Compare it in constant time.
	Secret string
	// Expires is zero for a token that does not.
	Expires time.Time
	// Authentication lets the bearer in, Signing has cluster-info signed.
	Authentication, Signing bool
	// Groups are those of the bearer, system:bootstrappers among them.
	Groups []string
	// Limits say which machines it is for.
	Limits Limits
}

// Parse reads the Secret of a token and says what is wrong with it.
func Parse(s *corev1.Secret) (*Token, error) {
	if s.Type != SecretType {
		return nil, fmt.Errorf("the Secret's type is %q and not %s", s.Type, SecretType)
	}
	t := &Token{
		ID: string(s.Data[keyID]), Secret: string(s.Data[keySecret]),
		Authentication: string(s.Data[keyAuthentication]) == "true", Signing: string(s.Data[keySigning]) == "true",
	}
	switch {
	case !isWord(t.ID, idLength):
		return nil, fmt.Errorf("%s must be %d lower case letters and digits", keyID, idLength)
	case s.Name != NamePrefix+t.ID:
		return nil, fmt.Errorf("the Secret of the token %s must be named %s%s", t.ID, NamePrefix, t.ID)
	case !isWord(t.Secret, secretLength):
		return nil, fmt.Errorf("%s must be %d lower case letters and digits", keySecret, secretLength)
	}
	var err error
	if t.Expires, err = Expiration(s); err != nil {
		return nil, err
	}
	if t.Limits, err = LimitsOf(s); err != nil {
		return nil, err
	}
	t.Groups, err = groups(string(s.Data[keyGroups]))
	return t, err
}

// NodeGroup is the group of machines that join as nodes, by kubeadm's name.
const NodeGroup = groupPrefix + "kubeadm:default-node-token"

// NewSecret makes the Secret of a token for the nodes within limits out of random
// text, of at least 22 letters and digits with 5 bits of randomness each.
func NewSecret(random string, expires time.Time, limits Limits) *corev1.Secret {
	word := strings.ToLower(random)
	id, secret := word[:idLength], word[idLength:idLength+secretLength]
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: NamePrefix + id, Namespace: Namespace}, Type: SecretType,
		Data: map[string][]byte{
			keyID: []byte(id), keySecret: []byte(secret), keyExpiration: []byte(expires.UTC().Format(time.RFC3339)),
			keyAuthentication: []byte("true"), keySigning: []byte("true"), keyGroups: []byte(NodeGroup),
		},
	}
	if limits.Machines > 0 {
		s.Data[keyMachines] = []byte(strconv.Itoa(limits.Machines))
	}
	if limits.Node != "" {
		s.Data[keyNode] = []byte(limits.Node)
	}
	return s
}

// Expiration is the time at which the token of a Secret ends, zero when it does
// not. A time that cannot be read is an error: such a token has ended.
func Expiration(s *corev1.Secret) (time.Time, error) {
	text := string(s.Data[keyExpiration])
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s is no time of the form 2006-01-02T15:04:05Z: %w", keyExpiration, err)
	}
	return at, nil
}

// Expired says whether the token has ended.
func (t *Token) Expired(now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires)
}

// groups reads the further groups, which all must lie below
// system:bootstrappers: a token never gives the rights of another group.
func groups(list string) ([]string, error) {
	out := []string{Group}
	if list == "" {
		return out, nil
	}
	for g := range strings.SplitSeq(list, ",") {
		if !isGroup(g) {
			return nil, fmt.Errorf("%s names the group %q: groups begin with %s, then come lower case letters, digits, '-' and ':'", keyGroups, g, groupPrefix)
		}
		out = append(out, g)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func isGroup(g string) bool {
	rest, ok := strings.CutPrefix(g, groupPrefix)
	if !ok || rest == "" || len(rest) > maxGroupSuffix {
		return false
	}
	for i := range len(rest) {
		c := rest[i]
		if !isWordByte(c) && (c != '-' && c != ':' || i == len(rest)-1) {
			return false
		}
	}
	return true
}

// Split takes ID.SECRET apart; ok is false for all that is not of this form.
func Split(token string) (id, secret string, ok bool) {
	id, secret, ok = strings.Cut(token, ".")
	return id, secret, ok && isWord(id, idLength) && isWord(secret, secretLength)
}

func isWord(s string, length int) bool {
	if len(s) != length {
		return false
	}
	for i := range len(s) {
		if !isWordByte(s[i]) {
			return false
		}
	}
	return true
}

func isWordByte(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// Sign returns the JSON Web Signature of content under the token, without the
// content itself: HEADER..SIGNATURE, HMAC with SHA-256.
func (t *Token) Sign(content string) (string, error) {
	if t.ID == "" || t.Secret == "" {
		return "", errors.New("signing needs a token with an ID and a secret")
	}
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}{"HS256", t.ID})
	if err != nil {
		return "", err
	}
	head := base64.RawURLEncoding.EncodeToString(header)
	mac := hmac.New(sha256.New, []byte(t.Secret))
	mac.Write([]byte(head + "." + base64.RawURLEncoding.EncodeToString([]byte(content))))
	return head + ".." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}

// Verify says whether a signature is that of content under the token.
func (t *Token) Verify(content, signature string) bool {
	want, err := t.Sign(content)
	return err == nil && hmac.Equal([]byte(want), []byte(signature))
}
