/** The client of backscroll, a storage daemon for chat applications. */
module backscroll {
  requires com.fasterxml.jackson.databind;

  exports backscroll;
  exports backscroll.errors;
  exports backscroll.records;
  exports backscroll.requests;

  opens backscroll.internal to
      com.fasterxml.jackson.databind;
}
