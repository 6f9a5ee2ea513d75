package apiserver

// stackRoom is about what a request needs of its goroutine's stack, with the
// deep calls that make the JSON of a stored pod: 32 KB in all.
const stackRoom = 24 << 10

// growStack makes the goroutine's stack large enough at once. Every request in
// memory has a goroutine of its own, which begins with a small stack; growing it
// step by step in the depth of a request copies all frames that are there by
// then, each time. At the beginning there is next to nothing to copy. Over the
// network, connections and workers have stacks that have grown (pkg/apiserver/h2).
//
//go:noinline
func growStack() byte {
	var room [stackRoom]byte
	return touch(&room)
}

// touch keeps the compiler from leaving the array out.
//
//go:noinline
func touch(room *[stackRoom]byte) byte { return room[0] }
