package oidc

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Config describes one issuer and how its tokens become users.
type Config struct {
	// IssuerURL is the "iss" of its tokens, https. Keys are found through
	// DiscoveryURL, or through the issuer's own document when that is empty.
	IssuerURL, DiscoveryURL string
	// CA is the PEM bundle that the issuer is known by; empty means the
	// system's.
	CA []byte
	// Audiences are those of which a token must be for one.
	Audiences []string
	// Algorithms are those that tokens may be signed with; empty means RS256.
	Algorithms []string
	// Username, Groups and UID say what names the user, its groups and its UID.
	// Username's is required, the others are empty for none; UID has no prefix.
	Username, Groups, UID Mapping
	// Extra are further attributes of the user.
	Extra []Extra
	// Required are claims that must have these values.
	Required map[string]string
	// ClaimRules must hold of the claims, UserRules of the user made of them.
	ClaimRules, UserRules []Rule
}

// Mapping is a claim and the prefix of what it gives, or a CEL expression of
// the claims.
type Mapping struct{ Claim, Prefix, Expression string }

// signingAlgorithms are those that tokens may ever be signed with: with "none" or
// one of a shared secret, whoever knows the public key would make tokens.
var signingAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512,
}

func (c *Config) validate() error {
	if err := checkURL(c.IssuerURL); err != nil {
		return fmt.Errorf("the URL of the issuer: %w", err)
	}
	if c.DiscoveryURL != "" {
		if err := checkURL(c.DiscoveryURL); err != nil {
			return fmt.Errorf("the discovery URL of the issuer %s: %w", c.IssuerURL, err)
		}
		if c.DiscoveryURL == c.IssuerURL {
			return fmt.Errorf("the discovery URL of the issuer %s is that of the issuer: leave it out", c.IssuerURL)
		}
	}
	switch {
	case len(c.Audiences) == 0 || slices.Contains(c.Audiences, ""):
		return fmt.Errorf("the issuer %s needs an audience, which its tokens must be for", c.IssuerURL)
	case c.Username.Claim == "" && c.Username.Expression == "":
		return fmt.Errorf("the issuer %s needs a claim that names the user", c.IssuerURL)
	case c.Groups.Claim == "" && c.Groups.Prefix != "":
		return fmt.Errorf("the issuer %s has a prefix for groups and no claim that names them", c.IssuerURL)
	}
	for name, m := range map[string]Mapping{"username": c.Username, "groups": c.Groups, "uid": c.UID} {
		if m.Expression != "" && (m.Claim != "" || m.Prefix != "") {
			return fmt.Errorf("claimMappings.%s of the issuer %s has an expression: leave out claim and prefix", name, c.IssuerURL)
		}
	}
	if err := checkExtra(c.Extra); err != nil {
		return err
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(signingAlgorithms, jose.SignatureAlgorithm(a)) {
			return fmt.Errorf("tokens of the issuer %s cannot be signed with %q: use one of %v", c.IssuerURL, a, signingAlgorithms)
		}
	}
	return nil
}

func (c *Config) algorithms() []jose.SignatureAlgorithm {
	if len(c.Algorithms) == 0 {
		return []jose.SignatureAlgorithm{jose.RS256}
	}
	out := make([]jose.SignatureAlgorithm, 0, len(c.Algorithms))
	for _, a := range c.Algorithms {
		out = append(out, jose.SignatureAlgorithm(a))
	}
	return out
}

// checkURL accepts what may be asked for keys: https, and nothing hidden in it.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no URL: %w", text, err)
	case u.Scheme != "https":
		return fmt.Errorf("%q must begin with https://", text)
	case u.Host == "":
		return fmt.Errorf("%q names no host", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the URL must have no user, query or fragment")
	}
	return nil
}

// discovery is where the document of the issuer lies.
func (c *Config) discovery() string {
	if c.DiscoveryURL != "" {
		return c.DiscoveryURL
	}
	return strings.TrimSuffix(c.IssuerURL, "/") + "/.well-known/openid-configuration"
}
