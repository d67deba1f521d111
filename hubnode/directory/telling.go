package directory

// Telling is what one listener was told of a log, and decides what to tell it
// next. It is not safe for concurrent use: who announces to the listener owns
// it.
type Telling struct {
	log      *Log
	maxBytes int
	told     Version
}

// NewTelling returns a Telling of l to a listener that knows nothing, in
// announcements of at most maxBytes each.
func NewTelling(l *Log, maxBytes int) *Telling { return &Telling{log: l, maxBytes: maxBytes} }

// Whole returns a snapshot: what a listener has to hear first.
func (t *Telling) Whole() []Announcement {
	parts := t.log.Snapshot(t.maxBytes)
	t.told = parts[0].To
	return parts
}

// News returns what the listener was not told yet; none when it was told
// everything.
func (t *Telling) News() []Announcement {
	var news []Announcement
	for t.told < t.log.Version() {
		a, ok := t.log.Since(t.told, t.maxBytes)
		if !ok {
			return t.Whole()
		}
		news = append(news, a)
		t.told = a.To
	}
	return news
}

// Repair returns what a listener misses that has seen a hole after version
// have.
func (t *Telling) Repair(have Version) []Announcement {
	if t.told = have; have > t.log.Version() {
		return t.Whole()
	}
	return t.News()
}

// Beat returns the news, or the version alone when there are none: a listener
// that has missed the end of what it was told sees the hole.
func (t *Telling) Beat() []Announcement {
	if news := t.News(); len(news) > 0 {
		return news
	}
	return []Announcement{{Owner: t.log.Owner(), From: t.told, To: t.told}}
}
