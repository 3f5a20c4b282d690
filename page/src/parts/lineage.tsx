// The family of a picture: what it was made from, and what was made of it.
import { useEffect, useState } from "preact/hooks";
import { api } from "../api.ts";
import { libraryChanged } from "../store.ts";
import { text } from "../text.ts";
import type { Picture } from "../types.ts";
import { PictureLink } from "./tile.tsx";

function Row({ title, pictures }: { title: string; pictures: Picture[] }) {
  if (!pictures.length) return null;
  return (
    <>
      <h3>{title}</h3>
      <ul class="strip">
        {pictures.map((one) => (
          <li key={one.id}>
            <PictureLink picture={one} side={256} />
            <span class="muted">{text.kindOf(one.kind)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

export function Lineage({ picture }: { picture: Picture }) {
  const [family, setFamily] = useState<{ ancestors: Picture[]; children: Picture[] } | null>(null);
  useEffect(() => void api.lineage(picture.id).then(setFamily, () => undefined), [picture.id, libraryChanged.value]);
  if (!family || !(family.ancestors.length + family.children.length)) return null;
  return (
    <section class="lineage" aria-label={text.image.lineage}>
      <h2>{text.image.lineage}</h2>
      <Row title={text.image.madeFrom} pictures={family.ancestors} />
      <Row title={text.image.madeOfIt} pictures={family.children.filter((one) => !one.deleted)} />
    </section>
  );
}
