import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
import { useLayoutEffect, useState } from "preact/hooks";

type Options = ConstructorParameters<typeof Virtualizer<HTMLElement, HTMLElement>>[0];
type Given = Omit<Options, "observeElementRect" | "observeElementOffset" | "scrollToFn" | "onChange">;

/** A virtualizer for Preact: which rows of a long list are to be rendered, and where. */
export function useVirtualizer(given: Given): Virtualizer<HTMLElement, HTMLElement> {
  const [, render] = useState(0);
  const options: Options = {
    ...given,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => {
      render((count) => count + 1);
    },
  };
  const [virtualizer] = useState(() => new Virtualizer(options));
  virtualizer.setOptions(options);
  useLayoutEffect(() => virtualizer._didMount(), [virtualizer]);
  useLayoutEffect(() => {
    virtualizer._willUpdate();
  });
  return virtualizer;
}
