// Package fieldtypes describes the kinds of the table to those who follow the
// ownership of fields: which lists are sets, which are maps by which keys, what
// is one value.
//
// Contract: a Converter says the same as the converters of client-go and of
// the modules of the other groups, from whose schemas types.txt is made; a test compares
// them, and makes the file anew with -update. Those read the schema of every
// kind at once, which takes a tenth of a second and some megabytes; a Converter
// reads the types that a kind consists of when that kind is first asked for.
package fieldtypes
