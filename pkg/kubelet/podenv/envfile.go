package podenv

import (
	"errors"
	"fmt"
	"strings"
)

// maxEnvFile bounds the files that fileKeyRef reads; a container wrote them.
const maxEnvFile = 64 << 10

// envFileValue finds the value of key in a file of lines NAME='value', the
// subset of shell syntax that Kubernetes defines: a value stands in single
// quotes, may span lines and is taken as it is; "NAME=" is empty; comments
// start with "#"; there is no white space before "=". The last value of a key
// wins. The whole file is checked, so that a bad line is found at once and not
// when somebody asks for the key behind it.
func envFileValue(data []byte, key string) (value string, found bool, err error) {
	if len(data) > maxEnvFile {
		return "", false, fmt.Errorf("the env file is larger than %d bytes", maxEnvFile)
	}
	rest := strings.ReplaceAll(string(data), "\r\n", "\n")
	line := 1
	for rest != "" {
		before := rest
		name, v, after, err := nextAssignment(rest)
		if err != nil {
			return "", false, fmt.Errorf("line %d of the env file: %w", line, err)
		}
		if name == key && name != "" {
			value, found = v, true
		}
		rest = after
		line += strings.Count(before[:len(before)-len(after)], "\n")
	}
	return value, found, nil
}

// nextAssignment reads one assignment, comment or blank line; name is empty
// for the last two.
func nextAssignment(s string) (name, value, rest string, err error) {
	s = strings.TrimLeft(s, " \t")
	line, after, _ := strings.Cut(s, "\n")
	if strings.TrimSpace(line) == "" || line[0] == '#' {
		return "", "", after, nil
	}
	name, tail, ok := strings.Cut(s, "=")
	if !ok || strings.Contains(name, "\n") {
		return "", "", "", errors.New("there is no '='")
	}
	if name == "" || strings.ContainsAny(name, " \t") {
		return "", "", "", errors.New("the name before '=' is empty or holds white space")
	}
	if quoted, isQuoted := strings.CutPrefix(tail, "'"); isQuoted {
		value, tail, ok = strings.Cut(quoted, "'")
		if !ok {
			return "", "", "", errors.New("the closing quote is missing")
		}
	}
	line, after, _ = strings.Cut(tail, "\n")
	switch {
	case strings.TrimSpace(line) == "":
	case (line[0] == ' ' || line[0] == '\t') && value == "" && !strings.HasPrefix(strings.TrimSpace(line), "#"):
		// The shell would take the rest as a command; the variable is empty.
	case (line[0] == ' ' || line[0] == '\t') && strings.HasPrefix(strings.TrimSpace(line), "#"):
	default:
		return "", "", "", errors.New("the value must stand in single quotes with nothing but a comment behind it")
	}
	return name, value, after, nil
}
