package backscroll.internal;

/** The view of what replies contain and requests may not. */
public interface OnlyInReplies {}
