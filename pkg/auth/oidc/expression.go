package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/auth"
)

// The variables of expressions.
const (
	claimsVariable = "claims"
	userVariable   = "user"
)

// Compile makes a program of a CEL expression that may read one variable:
// claims, which is a map, or user, which has username, uid, groups and extra. A
// condition must be of the type bool. Its error says what is wrong with the
// expression.
type Compile func(variable, text string, condition bool) (Expression, error)

// Expression is a compiled one, for any number of goroutines. It costs a bounded
// time.
type Expression interface {
	// Eval returns a bool, a string, a []string, or nil for null.
	Eval(ctx context.Context, value map[string]any) (any, error)
	// Selects says whether the expression reads the variable's field of that name.
	Selects(field string) bool
}

// Rule is a CEL condition that must be true.
type Rule struct {
	Expression string
	// Message says why it is not; empty for the expression itself.
	Message string
}

// Extra is a key of a user's extra attributes and the CEL expression of its
// values.
type Extra struct{ Key, Expression string }

// programs are the compiled expressions of a configuration, nil where it has
// none.
type programs struct {
	username, groups, uid Expression
	extra                 []Expression // as Config.Extra
	claims                []Expression // as Config.ClaimRules
	user                  []Expression // as Config.UserRules
}

// compiles says whether the configuration has any expression.
func (c *Config) compiles() bool {
	return c.Username.Expression != "" || c.Groups.Expression != "" || c.UID.Expression != "" ||
		len(c.Extra)+len(c.ClaimRules)+len(c.UserRules) > 0
}

func newPrograms(c *Config, compile Compile) (p programs, err error) {
	if !c.compiles() {
		return p, nil
	}
	if compile == nil {
		return p, errors.New("CEL expressions need a compiler")
	}
	var errs []error
	one := func(at, variable, text string, condition bool) Expression {
		if text == "" {
			return nil
		}
		e, err := compile(variable, text, condition)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: the expression %q: %w", at, text, err))
			return nil
		}
		return e
	}
	p.username = one("claimMappings.username", claimsVariable, c.Username.Expression, false)
	p.groups = one("claimMappings.groups", claimsVariable, c.Groups.Expression, false)
	p.uid = one("claimMappings.uid", claimsVariable, c.UID.Expression, false)
	for i, x := range c.Extra {
		p.extra = append(p.extra, one(fmt.Sprintf("claimMappings.extra[%d]", i), claimsVariable, x.Expression, false))
	}
	for i, r := range c.ClaimRules {
		p.claims = append(p.claims, one(fmt.Sprintf("claimValidationRules[%d]", i), claimsVariable, r.Expression, true))
	}
	for i, r := range c.UserRules {
		p.user = append(p.user, one(fmt.Sprintf("userValidationRules[%d]", i), userVariable, r.Expression, true))
	}
	if len(errs) == 0 {
		errs = append(errs, p.checkEmail())
	}
	return p, errors.Join(errs...)
}

// checkEmail insists that who is known by an address has shown that it is
// theirs: anybody may have an issuer write any address into a token.
func (p *programs) checkEmail() error {
	if p.username == nil || !p.username.Selects("email") {
		return nil
	}
	for _, e := range slices.Concat([]Expression{p.username}, p.extra, p.claims) {
		if e.Selects("email_verified") {
			return nil
		}
	}
	return errors.New("claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression")
}

// checkExtra says what is wrong with the keys of extra attributes.
func checkExtra(list []Extra) error {
	seen := map[string]bool{}
	for i, x := range list {
		at := field.NewPath("claimMappings", "extra").Index(i)
		if errs := validation.IsDomainPrefixedPath(at.Child("key"), x.Key); len(errs) > 0 {
			return errs.ToAggregate()
		}
		domain, _, _ := strings.Cut(x.Key, "/")
		of := func(name string) bool { return domain == name || strings.HasSuffix(domain, "."+name) }
		switch {
		case x.Key != strings.ToLower(x.Key):
			return fmt.Errorf("%s.key %q must be lowercase", at, x.Key)
		case of("k8s.io") || of("kubernetes.io"):
			return fmt.Errorf("%s.key %q: k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use", at, x.Key)
		case seen[x.Key]:
			return fmt.Errorf("%s.key %q is there twice", at, x.Key)
		case x.Expression == "":
			return fmt.Errorf("%s.valueExpression is missing", at)
		}
		seen[x.Key] = true
	}
	return nil
}

// values are the claims as expressions see them.
func (c claims) values() (map[string]any, error) {
	out := make(map[string]any, len(c))
	for name, raw := range c {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("%w: its claim %q cannot be read", ErrInvalid, name)
		}
		out[name] = v
	}
	return out, nil
}

// userValues are a user as expressions see it.
func userValues(u *auth.User) map[string]any {
	extra := map[string][]string{}
	for k, v := range u.Extra {
		extra[k] = v
	}
	return map[string]any{"username": u.Name, "uid": u.UID, "groups": append([]string{}, u.Groups...), "extra": extra}
}

// hold says whether all rules are true of value.
func hold(ctx context.Context, rules []Rule, compiled []Expression, value map[string]any) error {
	for i, e := range compiled {
		v, err := e.Eval(ctx, value)
		if err != nil {
			return fmt.Errorf("%w: the rule %q cannot be decided: %w", ErrInvalid, rules[i].Expression, err)
		}
		if v != true {
			message := rules[i].Message
			if message == "" {
				message = "it is not true of this token"
			}
			return fmt.Errorf("%w: the rule %q: %s", ErrInvalid, rules[i].Expression, message)
		}
	}
	return nil
}

// textOf evaluates to a string.
func textOf(ctx context.Context, e Expression, what string, value map[string]any) (string, error) {
	v, err := e.Eval(ctx, value)
	if err != nil {
		return "", fmt.Errorf("%w: its %s cannot be found: %w", ErrInvalid, what, err)
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%w: its %s is no text", ErrInvalid, what)
	}
	return s, nil
}

// textsOf evaluates to a string or a list of strings, of which empty ones are
// left out; null is none.
func textsOf(ctx context.Context, e Expression, what string, value map[string]any) ([]string, error) {
	v, err := e.Eval(ctx, value)
	if err != nil {
		return nil, fmt.Errorf("%w: its %s cannot be found: %w", ErrInvalid, what, err)
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		if v == "" {
			return nil, nil
		}
		return []string{v}, nil
	case []string:
		return slices.DeleteFunc(slices.Clone(v), func(s string) bool { return s == "" }), nil
	}
	return nil, fmt.Errorf("%w: its %s are neither a text nor a list of texts", ErrInvalid, what)
}
