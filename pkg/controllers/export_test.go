package controllers

// Names are the names of all controllers.
func Names() []string {
	var names []string
	for _, c := range list {
		names = append(names, c.name)
	}
	return names
}
