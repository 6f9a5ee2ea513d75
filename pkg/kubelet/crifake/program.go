package crifake

import (
	"strconv"
	"strings"
	"time"
)

// program is what the process of a container does.
type program struct {
	steps       []step
	status      int32 // exit code at the end of the steps
	termCode    int32 // exit code on SIGTERM
	ignoresTerm bool
	broken      bool // the executable does not exist
}

// step is one statement: exit, sleep, print, write or forever.
type step struct {
	do         string
	code       int32
	wait       time.Duration
	text, path string
}

// parse understands a command line. No command at all runs the image's own
// program, which never ends.
func parse(argv []string) program {
	p := program{termCode: 143}
	if len(argv) == 0 {
		p.steps = []step{{do: "forever"}}
		return p
	}
	switch name := base(argv[0]); {
	case strings.HasPrefix(name, "no-such-"):
		p.broken = true
	case (name == "sh" || name == "ash" || name == "bash") && len(argv) > 2 && strings.HasSuffix(argv[1], "c"):
		p.script(argv[2])
	default:
		p.statement(argv)
	}
	return p
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// script splits at newlines, ";", "&&" and "||" outside quotes. Every
// statement runs: there is no branching.
func (p *program) script(text string) {
	for _, sep := range []string{"&&", "||", "\n"} {
		text = strings.ReplaceAll(text, sep, ";")
	}
	for _, words := range split(text) {
		p.statement(words)
	}
}

// split cuts a script into statements and those into words; quotes hold words
// and separators together.
func split(text string) [][]string {
	var out [][]string
	var words []string
	var word strings.Builder
	quoted, quote := false, rune(0)
	flush := func() {
		if word.Len() > 0 || quoted {
			words = append(words, word.String())
		}
		word.Reset()
		quoted = false
	}
	for _, c := range text + ";" {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, quoted = c, true
		case c == ' ' || c == '\t':
			flush()
		case c == ';':
			flush()
			if len(words) > 0 {
				out = append(out, words)
			}
			words = nil
		default:
			word.WriteRune(c)
		}
	}
	return out
}

func (p *program) statement(words []string) {
	arg := ""
	if len(words) > 1 {
		arg = words[1]
	}
	switch base(words[0]) {
	case "exit":
		code, _ := strconv.Atoi(arg)
		p.steps = append(p.steps, step{do: "exit", code: int32(code)})
	case "sleep":
		p.steps = append(p.steps, sleepStep(arg))
		p.status = 0
	case "echo", "printf":
		p.print(words[1:])
		p.status = 0
	case "true", ":", "touch", "mkdir", "cat", "set", "rm":
		p.status = 0
	case "false":
		p.status = 1
	case "trap":
		p.trap(words)
	default:
		p.steps = append(p.steps, step{do: "forever"})
	}
}

func sleepStep(arg string) step {
	if seconds, err := strconv.ParseFloat(arg, 64); err == nil && seconds >= 0 && seconds < 1e9 {
		return step{do: "sleep", wait: time.Duration(seconds * float64(time.Second))}
	}
	if d, err := time.ParseDuration(arg); err == nil {
		return step{do: "sleep", wait: d}
	}
	return step{do: "forever"} // "infinity", "1d"
}

func (p *program) print(words []string) {
	for i, w := range words {
		if path, ok := strings.CutPrefix(w, ">"); ok {
			path = strings.TrimPrefix(path, ">")
			if path == "" && i+1 < len(words) {
				path = words[i+1]
			}
			p.steps = append(p.steps, step{do: "write", text: strings.Join(words[:i], " "), path: path})
			return
		}
	}
	p.steps = append(p.steps, step{do: "print", text: strings.Join(words, " ")})
}

// trap knows `trap ” TERM` and `trap 'exit N' TERM`.
func (p *program) trap(words []string) {
	if len(words) < 2 {
		return
	}
	action := strings.Fields(words[1])
	if len(action) == 0 {
		p.ignoresTerm = true
		return
	}
	if len(action) == 2 && action[0] == "exit" {
		code, _ := strconv.Atoi(action[1])
		p.termCode = int32(code)
	}
}
