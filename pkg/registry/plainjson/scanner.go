package plainjson

import (
	"strconv"
	"unicode/utf8"
)

// scanner is a place in a document.
type scanner struct {
	doc   []byte
	at    int
	depth int
	text  []byte // the last string that had escapes
	// whole is the document of a short one, of which strings are parts, so that
	// they need no memory each; from is where the last one begins, negative for
	// one that had escapes.
	whole string
	from  int
	nulls bool // a null has been read
}

// shortDocument is how long a document may be for one string of it to hold all of
// it in memory.
const shortDocument = 16 << 10

func newScanner(doc []byte) scanner {
	s := scanner{doc: doc}
	if len(doc) <= shortDocument {
		s.whole = string(doc)
	}
	return s
}

// keep is the string that was read last, for longer than until the next one.
func (s *scanner) keep(text []byte) string {
	if s.whole == "" || s.from < 0 {
		return string(text)
	}
	return s.whole[s.from : s.from+len(text)]
}

func (s *scanner) space() {
	for s.at < len(s.doc) {
		switch s.doc[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.doc) {
		return s.doc[s.at]
	}
	return 0
}

// take passes over a byte and the space behind it, if it is the next.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	s.space()
	return true
}

// word passes over a literal.
func (s *scanner) word(w string) bool {
	if len(s.doc)-s.at < len(w) || string(s.doc[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// null passes over a null.
func (s *scanner) null() bool {
	is := s.peek() == 'n' && s.word("null")
	s.nulls = s.nulls || is
	return is
}

// str reads a string. The result is valid until the next one is read.
func (s *scanner) str() ([]byte, error) {
	if s.peek() != '"' {
		return nil, ErrUnusual
	}
	begin := s.at + 1
	ascii := true
	for i := begin; i < len(s.doc); i++ {
		switch c := s.doc[i]; {
		case c == '"':
			s.at, s.from = i+1, begin
			text := s.doc[begin:i]
			if !ascii && !utf8.Valid(text) {
				return nil, ErrUnusual
			}
			return text, nil
		case c == '\\':
			return s.escaped(begin, i)
		case c < ' ':
			return nil, ErrUnusual
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, ErrUnusual
}

// escapes are those of one letter.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escaped reads on from the first escape of a string.
func (s *scanner) escaped(begin, i int) ([]byte, error) {
	s.text, s.from = append(s.text[:0], s.doc[begin:i]...), -1
	for i < len(s.doc) {
		switch c := s.doc[i]; {
		case c == '"':
			s.at = i + 1
			if !utf8.Valid(s.text) {
				return nil, ErrUnusual
			}
			return s.text, nil
		case c < ' ':
			return nil, ErrUnusual
		case c != '\\':
			s.text = append(s.text, c)
			i++
			continue
		}
		if i+1 >= len(s.doc) {
			return nil, ErrUnusual
		}
		if short := escapes[s.doc[i+1]]; short != 0 {
			s.text = append(s.text, short)
			i += 2
			continue
		}
		if s.doc[i+1] != 'u' || i+6 > len(s.doc) {
			return nil, ErrUnusual
		}
		r, err := strconv.ParseUint(string(s.doc[i+2:i+6]), 16, 16)
		if err != nil || r >= 0xd800 && r < 0xe000 { // half of a pair
			return nil, ErrUnusual
		}
		s.text = utf8.AppendRune(s.text, rune(r))
		i += 6
	}
	return nil, ErrUnusual
}

// number reads a whole number.
func (s *scanner) number() ([]byte, error) {
	begin := s.at
	if s.peek() == '-' {
		s.at++
	}
	first := s.at
	for s.at < len(s.doc) && s.doc[s.at] >= '0' && s.doc[s.at] <= '9' {
		s.at++
	}
	digits := s.at - first
	if c := s.peek(); digits == 0 || digits > 1 && s.doc[first] == '0' || c == '.' || c == 'e' || c == 'E' {
		return nil, ErrUnusual
	}
	return s.doc[begin:s.at], nil
}

// raw reads a value of any kind but a literal as it is.
func (s *scanner) raw() ([]byte, error) {
	begin := s.at
	switch s.peek() {
	case 't', 'f', 'n':
		return nil, ErrUnusual
	}
	if err := s.any(); err != nil {
		return nil, err
	}
	return s.doc[begin:s.at], nil
}

// any passes over a value of any kind.
func (s *scanner) any() error {
	var err error
	switch s.peek() {
	case '"':
		_, err = s.str()
		return err
	case '{':
		return s.members('{', '}')
	case '[':
		return s.members('[', ']')
	case 't', 'f', 'n':
		if !s.word("true") && !s.word("false") && !s.null() {
			err = ErrUnusual
		}
		return err
	}
	_, err = s.number()
	return err
}

// members passes over an object or a list.
func (s *scanner) members(begin, end byte) error {
	if err := s.enter(begin); err != nil || s.empty(end) {
		return err
	}
	for {
		if begin == '{' {
			if _, err := s.name(); err != nil {
				return err
			}
		}
		if err := s.any(); err != nil {
			return err
		}
		if more, err := s.more(end); err != nil || !more {
			return err
		}
	}
}

// enter begins a list or an object.
func (s *scanner) enter(c byte) error {
	if s.depth++; s.depth > maxDepth || !s.take(c) {
		return ErrUnusual
	}
	return nil
}

// more says that a list or an object goes on behind a value.
func (s *scanner) more(end byte) (bool, error) {
	s.space()
	if s.take(',') {
		return true, nil
	}
	if s.peek() != end {
		return false, ErrUnusual
	}
	s.at++
	s.depth--
	return false, nil
}

// empty ends a list or an object that has nothing in it.
func (s *scanner) empty(end byte) bool {
	if s.peek() != end {
		return false
	}
	s.at++
	s.depth--
	return true
}

// name reads the name of a member with the colon behind it.
func (s *scanner) name() ([]byte, error) {
	name, err := s.str()
	if err != nil {
		return nil, err
	}
	s.space()
	if !s.take(':') {
		return nil, ErrUnusual
	}
	return name, nil
}
